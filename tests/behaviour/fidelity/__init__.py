"""A token adapter behaves like a plain adapter, except that it signs."""
