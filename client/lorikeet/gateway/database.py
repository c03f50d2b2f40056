"""The gateway's own tables, beside those of DBOS: API keys, files and their parts, live gateways, secrets."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

metadata = sa.MetaData()

api_keys = sa.Table(
    "lorikeet_api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("secret_hash", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)

files = sa.Table(
    "lorikeet_files",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("content_type", sa.String(200), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, index=True),
    sa.Column("is_private", sa.Boolean, nullable=False),
    sa.Column("keep_seconds", sa.Float),  # lifetime from its completion; null means for ever
    sa.Column("digest", sa.String(64)),  # null until the upload is complete
)

file_parts = sa.Table(
    "lorikeet_file_parts",
    metadata,
    sa.Column("key", sa.String(32), primary_key=True),
    sa.Column("file", sa.String(255), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("digest", sa.String(64)),  # null until its bytes are stored
)

gateways = sa.Table(
    "lorikeet_gateways",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
)

instance_secrets = sa.Table(
    "lorikeet_secrets",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)


def open_database(url: str) -> sa.Engine:
    """The engine of the database, with the gateway's tables. Raises sqlalchemy.exc.SQLAlchemyError, OSError."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = sa.create_engine(parsed, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
    metadata.create_all(engine, checkfirst=True)
    return engine


def insert_or_ignore(engine: sa.Engine, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless its primary key exists. Returns whether it was inserted."""
    insert = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)
    with engine.begin() as connection:
        return bool(connection.execute(insert.values(values).on_conflict_do_nothing()).rowcount)


def instance_secret(engine: sa.Engine, name: str) -> bytes:
    """32 random bytes that all gateways of this database share; made at the first call."""
    insert_or_ignore(engine, instance_secrets, {"name": name, "value": secrets.token_bytes(32)})
    with engine.connect() as connection:
        value = connection.scalar(sa.select(instance_secrets.c.value).where(instance_secrets.c.name == name))
    assert isinstance(value, bytes)
    return value


def _set_up_sqlite(connection: Any, _: object) -> None:
    # WAL: readers do not wait for a writer. The mode stays in the file, so that DBOS uses it too.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA busy_timeout=30000")
    # A commit does not wait for the disk: it survives the end of the gateway, but not always a power cut. Neither do
    # the bytes of files. DBOS has connections of its own, which do wait.
    connection.execute("PRAGMA synchronous=NORMAL")
