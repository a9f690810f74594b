"""How an engine opens a connection: the chain around ``Dialect.connect``, composed in one place.

``Dialect.connect`` runs after all listeners to ``do_connect``. A listener of this package would run
among the user's, and because it returns a connection, the listeners after it would not run at all.
So the method is wrapped, once. From the driver outwards:

1. the driver's ``connect``, by SQLAlchemy's dialect; or, in the place of 1 to 3, the function of
   the user's that opens connections (``engine/creators.py``);
2. what the driver needs: a URL's query keys take the names that it knows (asyncpg's ``sslmode``),
   the attempt gets a time limit where the driver has none;
3. psycopg's pipelined connections take the place of its plain ones, where the settings ask for it;
   a connection without the encryption that ``tls`` promises is refused;
4. the secrets of the settings join the arguments; a refused password that rotates is asked for
   again. What is further out sees no secret;
5. a pooler in transaction mode is recognised, and the connection opened without prepared
   statements;
6. the fork gate: no fork happens while another thread is inside 1 to 5;
7. an asynchronous driver that opens its connections in a thread (aiosqlite) finishes although its
   task is cancelled.

Outside of the dialect, the pool opens connections in a thread or task of their own within the
deadline of the checkout (``pool/connector.py``), and the listeners to ``connect`` set up what was
opened. Time limits are arguments, made in ``engine/timeouts.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionfactory.drivers import dialects, known, tls
from sessionfactory.drivers.psycopg_pipeline import installation
from sessionfactory.engine import creators, credentials, forks, pgbouncer
from sessionfactory.pool import shielded

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.pool.waiting import Waiting


def compose(engine: Engine, settings: DatabaseSettings, waiting: Waiting) -> None:
    """Make an engine open its connections by the chain that this module describes."""
    dialect = engine.dialect
    if creators.of_settings(settings) is not None:
        connect = creators.opening(dialect, settings, dialect.connect)
    else:
        connect = dialects.connecting_as_known(dialect, dialect.connect)
        connect = installation.pipelining(dialect, settings, connect)
    connect = tls.refusing_plaintext(dialect, settings, connect)
    connect = credentials.giving_secrets(dialect, engine.url, settings, waiting, connect)
    connect = pgbouncer.recognising(dialect, settings, waiting, connect)
    connect = forks.between_forks(dialect, connect)
    if dialect.is_async and known.named(dialect.driver).opens_in_thread:
        connect = shielded.opening_to_the_end(dialect, connect)
    dialect.connect = connect  # type: ignore[method-assign]  # of this one dialect
