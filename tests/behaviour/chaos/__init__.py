"""Real processes that share a token at a real authorization server, and are killed."""
