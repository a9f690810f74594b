"""Session factories, and the sessions that they open."""
