"""Integrations, one module for each framework; a module is imported only by its users.

Each one is an extra of the same name: ``pip install "sessionfactory[fastapi]"``.
"""
