"""Profiles: APIs and their tokens described in a file, ``tokenadapter.toml``, instead of in code.

Commands such as ``tokenadapter header`` start once for each line of a crontab.  So nothing here
imports requests before an adapter is needed, and no secret is read before a renewal needs it.
"""
