"""Small real programs, which the tests run."""
