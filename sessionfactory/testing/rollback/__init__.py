"""A factory whose transactions are rolled back when the test ends."""
