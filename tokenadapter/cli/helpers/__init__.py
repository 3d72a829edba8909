"""The protocols in which other programs ask for a token: a module for each program.

A module has one function, ``answer(call, guard)``, from a :class:`~tokenadapter.cli.helper.Call` to
the text that the program reads and the exit code.  It does no I/O, and gets a token only from the
:class:`~tokenadapter.cli.helper.Guard`, for the URL that the program names.
"""
