"""A request goes through a token adapter as through a plain one, and nobody can tell."""
