"""One renewal for all who share a slot."""
