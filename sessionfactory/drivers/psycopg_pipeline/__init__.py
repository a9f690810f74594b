"""Connections of psycopg 3 that send BEGIN and settings together with the first statement."""
