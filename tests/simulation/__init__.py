"""Interleavings of processes that share a token, run in one thread and on a simulated clock.

A *schedule* is one run of a small *world*: some processes with threads, one store, one
authorization server, one API.  The keeper is the real one.  Its runtime, store and grant are
simulated: at each call of theirs, another thread may continue, or a fault may occur.  Everything
in a schedule follows from one number, the seed, so that the schedule can be repeated.

=================  =============================================================================
``choices``        the decisions: random, or an enumeration of all schedules of a small world
``world``          the scheduler: which thread continues, and the time
``process``        processes, their threads, and their computers
``runtime``        clocks, threads and events, as a keeper sees them
``store``          the slot and its lock, for each kind of store
``authority``      the authorization server, and the API that it protects
``grants``         the grants and plain functions of the processes
``users``          the threads that use the token, as the adapter does, adopt it and forget it
``witness``        observes the world, and checks the rules after every step:
``ledger``         the records of the witness
``presentations``  the rules for presentations of credentials
``writes``         the rules for writes
``complaints``     the rules for errors and waiting times of users
``faults``         faults of processes (killed, stopped, forked, ...), clocks, store and API
``plan``           the parameters of a world
``stage``          builds a world from a plan
``schedule``       plays a schedule by its seed, or all schedules of a small world
``mutants``        keepers and stores without one rule each, every one of which must be detected
=================  =============================================================================

``python -m simulation SEED`` (in ``tests``) plays one schedule and prints its events.
"""
