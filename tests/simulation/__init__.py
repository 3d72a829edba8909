"""Every interleaving of processes that share a token, played on one thread and a made-up clock.

A *schedule* is one run of a small *world*: some processes with threads, one store, one
authorization server, one API.  The keeper is the real one; what it stands on (machine, store and
grant) is simulated, so that wherever it asks them for something another thread may go on, or
something may break.  All that happens follows from one number, the seed, and can be played again.

=================  =============================================================================
``choices``        who decides: dice, or an enumeration of all schedules of a small world
``world``          the scheduler: which thread goes on, and what time it is
``process``        processes, their threads, and the computers they run on
``machine``        clocks, threads and events, as a keeper sees them
``store``          the slot and its lock: each of the kinds that there are
``authority``      the authorization server, and the API that it protects
``grants``         each process' way to that server: grants, and plain functions
``users``          the threads that use the token, as the adapter does, and adopt and forget it
``witness``        knows the truth, and checks it against what must hold after every step ...
``ledger``         ... what it writes down
``presentations``  ... when a credential may be presented
``writes``         ... what may be written
``complaints``     ... which errors users may get, and for how long they may wait
``faults``         what happens to processes (killed, stopped, forked, ...), clocks, store and API
``plan``           what kind of world it is
``stage``          puts everyone there
``schedule``       plays: by a seed, or all in turn
``mutants``        keepers and stores with one rule taken out: each has to be found out
=================  =============================================================================

``python -m simulation SEED`` (in ``tests``) plays one schedule and shows it.
"""
