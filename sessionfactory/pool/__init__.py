"""The connection pool: wait queue, holders, liveness, deadlocks and leaks."""
