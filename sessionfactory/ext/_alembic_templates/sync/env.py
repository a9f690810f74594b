"""Migrations of the database `default`; its URL is in DATABASE_URL."""

from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations

target_metadata = None  # from app.models import Base; target_metadata = Base.metadata

with SessionFactoryRegistry.from_env() as registry:
    run_migrations(registry, target_metadata)
