"""A factory on SQLite in memory, reset from an image."""
