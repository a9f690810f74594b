"""Finds out what became of a COMMIT whose reply was lost."""
