"""Whether a COMMIT whose answer was lost took effect."""
