"""A factory that records sessions and statements."""
