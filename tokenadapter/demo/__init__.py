"""The demo: processes that share one token, on a local test server.

``tokenadapter demo`` plays it; its ``--help`` lists the options.
"""
