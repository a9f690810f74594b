"""Views: engines with options on the same pool, and what their transactions are asked for."""
