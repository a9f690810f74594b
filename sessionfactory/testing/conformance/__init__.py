"""A public check for anybody's session factory."""
