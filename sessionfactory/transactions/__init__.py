"""What is done with a transaction of any session factory: plain functions, for both halves."""
