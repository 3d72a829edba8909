"""Where a token lives: one module for each kind of store, imported when it is first used."""
