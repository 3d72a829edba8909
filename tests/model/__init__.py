"""A model of the renewal protocol: every state that two or three processes can reach.

The model is independent: it shares no code with the library or with :mod:`simulation`, and is small
enough to be read in full.

============  ==============================================================================
``world``     the state (record, lock, grants, processes), and the invariants
``protocol``  the possible next steps, and the rules of the processes
``variants``  the protocol without one rule each, every one of which must violate an invariant
``explore``   a breadth-first search of all states, which finds the shortest violation
============  ==============================================================================

``python -m model`` (in ``tests``) prints the tables of docs/concepts/why.md; with the name of a
variant, it prints the steps to its violation.
"""
