"""Migrations of the database `default`, over an async driver; its URL is in DATABASE_URL."""

import asyncio

from sessionfactory import AsyncSessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations_async

target_metadata = None  # from app.models import Base; target_metadata = Base.metadata


async def main() -> None:
    """Run what the command asks for."""
    async with AsyncSessionFactoryRegistry.from_env() as registry:
        await run_migrations_async(registry, target_metadata)


asyncio.run(main())
