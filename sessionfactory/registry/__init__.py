"""Factories by name, picked from configuration."""
