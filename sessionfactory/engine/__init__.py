"""What is done to an engine so that it deserves trust.

``managed.py`` is the door: it builds the engine once, on first use, and owns its life. Everything
here works on the sync engine, with SQLAlchemy's documented events, and serves both halves.
"""
