"""API keys: only a hash is stored, and a revoked key is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lorikeet.gateway import keys as keys_module
from lorikeet.gateway.database import api_keys, instance_secret, open_database
from lorikeet.gateway.keys import KeyStore


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = open_database(f"sqlite:///{tmp_path / 'folder' / 'gateway.sqlite'}")
    yield made
    made.dispose()


@pytest.fixture
def store(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    monkeypatch.setattr(keys_module, "CACHE_SECONDS", 0.0)
    return KeyStore(engine)


def test_a_key_is_found_by_its_credentials_alone(store: KeyStore) -> None:
    assert store.is_empty()
    key, credentials = store.add("alice")
    assert not store.is_empty()
    assert store.find(credentials) == key.id
    key_id, secret = credentials.split(":")
    for wrong in ("", ":", key_id, f"{key_id}:", f"{key_id}:{secret}x", f"other:{secret}", secret):
        assert store.find(wrong) is None


def test_a_revoked_key_is_refused_and_stays_listed(store: KeyStore) -> None:
    key, credentials = store.add("alice")
    store.add("bob")
    assert store.revoke(key.id)
    assert not store.revoke(key.id)
    assert store.find(credentials) is None
    assert [(one.name, one.revoked_at is None) for one in store.list()] == [("alice", False), ("bob", True)]


def test_the_database_holds_no_secret(store: KeyStore, engine: sa.Engine) -> None:
    _, credentials = store.add("alice")
    with engine.connect() as connection:
        row = connection.execute(sa.select(api_keys)).one()
    assert credentials.split(":")[1] not in repr(row)


def test_an_instance_secret_is_made_once_for_each_name(engine: sa.Engine) -> None:
    assert instance_secret(engine, "a") == instance_secret(engine, "a") != instance_secret(engine, "b")
    assert len(instance_secret(engine, "a")) == 32
