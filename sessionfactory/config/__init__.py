"""Settings: what they are, how they are checked, and where they are read from."""
