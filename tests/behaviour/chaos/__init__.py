"""Real processes that share a token, use a real authorization server, and are killed."""
