"""Results folders as tables."""
