"""A factory whose database is a clone of a template, for each test."""
