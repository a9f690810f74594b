"""Migrations of several databases; their URLs are in DATABASE_URL and NAME_DATABASE_URL."""

from alembic import context

from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations

# One metadata for each database of `databases` in alembic.ini, instead of None.
names = (context.config.get_main_option("databases") or "default").replace(" ", "").split(",")
targets = dict.fromkeys(names)

with SessionFactoryRegistry.from_env() as registry:
    run_migrations(registry, targets)
