"""The behaviour that users see, across all modules."""
