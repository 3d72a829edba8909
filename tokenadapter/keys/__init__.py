"""Keys: what a program signs with, instead of sending a secret.

A key stays where it is: in a file, in memory, or in another process that signs for this one.  Only
signatures and the public key leave.
"""
