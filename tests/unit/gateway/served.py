"""A gateway in this process, behind a real HTTP server, with two keys."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from lorikeet.gateway.app import create_app
from lorikeet.gateway.database import files, open_database
from lorikeet.gateway.keys import KeyStore
from lorikeet.gateway.services import Services
from lorikeet.gateway.settings import GatewaySettings


@dataclass(frozen=True)
class Served:
    """`loop`: the one that serves. `key`, `other_key`: `<id>:<secret>`. `client` sends no key."""

    app: FastAPI
    loop: asyncio.AbstractEventLoop
    settings: GatewaySettings
    key: str
    other_key: str
    client: httpx.Client

    @property
    def url(self) -> str:
        return self.settings.base_url

    @property
    def services(self) -> Services:
        found: Services = self.app.state.services
        return found

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.key}"}

    @property
    def other_auth(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.other_key}"}

    def objects(self) -> list[Path]:
        """What lies in the folder for files."""
        return sorted((self.settings.data / "files").iterdir())

    def newest_object(self) -> Path:
        return max(self.objects(), key=lambda path: path.stat().st_mtime_ns)

    def sweep(self) -> None:
        """Remove what has expired, as the gateway does once a minute."""
        asyncio.run_coroutine_threadsafe(self.services.files.delete_expired(), self.loop).result(30)

    def stored_names(self) -> set[str]:
        """The names of files and unfinished uploads in the database."""
        with self.services.engine.connect() as connection:
            return set(connection.scalars(sa.select(files.c.name)))

    def upload(self, content: bytes, content_type: str = "image/png", **headers: str) -> str:
        """The address of a new file."""
        sent = {**self.auth, "Content-Type": content_type, **headers}
        reply = self.client.post("/cdn/files/upload", content=content, headers=sent)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["access_url"])

    def initiate(self, path: str = "initiate?storage_type=fal-cdn-v3", **body: object) -> dict[str, Any]:
        """The addresses of an upload."""
        reply = self.client.post(f"/rest/storage/upload/{path}", json=body, headers=self.auth)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


@contextmanager
def serve(folder: Path, **settings: Any) -> Iterator[Served]:
    """A gateway whose data is in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = {"data": folder, "port": listener.getsockname()[1], "servers": "grpc://127.0.0.1:1", **settings}
        valid = GatewaySettings(**given)
        keys = KeyStore(open_database(valid.database_url))
        key, other_key = keys.add("one")[1], keys.add("two")[1]
        app = create_app(valid)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=[server.serve([listener])], daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{valid.port}", timeout=60) as client:
            yield Served(app, loop, valid, key, other_key, client)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
