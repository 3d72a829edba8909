"""The ``tokenadapter`` command: access tokens for crontabs, shells and unmodified programs.

Each command stands in a file of its own, and is imported when it is called.
"""
