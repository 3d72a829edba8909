"""The main job, shown: processes that share one token, on a token server of their own.

``python -m tokenadapter.demo`` plays it; ``--help`` names what can be varied.
"""
