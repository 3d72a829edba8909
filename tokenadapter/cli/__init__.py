"""The ``tokenadapter`` command: access tokens for crontabs, shells and unmodified programs.

Each command has a module of its own, which is imported when the command is called.
"""
