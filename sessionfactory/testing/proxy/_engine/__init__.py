"""The proxy itself, run in a process of its own so that it takes no time from the one it serves.

The process starts with this folder's parent on its path and imports `_engine` as a package on top
level: it loads neither `sessionfactory` nor SQLAlchemy, and is up in a few hundredths of a second.
Hence the standard library alone, and relative imports alone, in all that lies in here.
"""
