"""A service of notes: FastAPI, factories injected, migrations by Alembic, tests of both kinds.

Read `service.py` first (it knows the interface and nothing else), then `app.py` (it puts the
program together), then `test_notes.py` (it brings other databases).
"""
