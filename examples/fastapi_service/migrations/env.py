"""Migrations of the database `default`; DATABASE_URL says where it is."""

from examples.fastapi_service.models import Base
from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations

with SessionFactoryRegistry.from_env() as registry:
    run_migrations(registry, Base.metadata)
