"""Functions that run, repeat and configure transactions of any session factory, for both halves."""
