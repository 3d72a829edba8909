"""What plugs into HTTP libraries."""
