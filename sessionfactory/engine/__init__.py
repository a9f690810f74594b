"""The engine: built once, on first use; how it connects, begins, commits, and how it ends."""
