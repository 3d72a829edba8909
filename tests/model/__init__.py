"""A model of the renewal protocol: every state that two or three processes can reach.

It is a second opinion.  It shares no code with the library or with :mod:`simulation`, and is small
enough to be read in full.

============  ==============================================================================
``world``     what there is (record, lock, grants, processes), and what must always hold
``protocol``  what may happen next, and the rules that processes go by
``variants``  the protocol with one rule left out, which has to be found out
``explore``   all states, breadth first: a violation is found by the shortest way
============  ==============================================================================

``python -m model`` (in ``tests``) prints the tables of docs/concepts/why.md; with the name of a
variant, how it fails.
"""
