"""Token sources: how a token is obtained.  One grant a file; :mod:`tokenadapter` names them all."""
