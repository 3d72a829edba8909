"""Profiles: APIs and their tokens described in a file, ``tokenadapter.toml``, instead of in code.

``tokenadapter header`` and its like start once for each line of a crontab, so nothing here
imports requests before an adapter is asked for, and no secret is looked up before a renewal needs
it.
"""
