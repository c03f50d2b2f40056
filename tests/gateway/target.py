"""A gateway under test, as a client reaches it."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gateway import wire
from tests.gateway.inputs import slow


@dataclass(frozen=True)
class Target:
    """`workspace`: the folder in which Node runs. `authority`: the certificate that a client of https must trust."""

    url: str
    key: str
    workspace: Path
    authority: Path | None = None

    def ask(
        self, path: str, method: str = "GET", body: object = None, headers: Mapping[str, str] | None = None
    ) -> wire.Answer:
        """A plain request with the key."""
        sent = {"Authorization": f"Key {self.key}", **(headers or {})}
        return wire.ask(f"{self.url}{path}", method, body, sent, authority=self.authority)

    def download(self, url: str) -> bytes:
        """The content of a file of the gateway."""
        context = ssl.create_default_context(cafile=self.authority) if self.authority else None
        with urllib.request.urlopen(url, context=context) as reply:
            content: bytes = reply.read()
        return content

    def status(self, request_id: str) -> wire.Answer:
        return self.ask(f"/queue/{wire.APPLICATION}/requests/{request_id}/status?logs=1")

    def wait_until(self, request_id: str, state: str, timeout: float = 60) -> wire.Answer:
        """Poll until the request has this state. Raises AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (found := self.status(request_id)).body["status"] != state:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    @contextmanager
    def occupied(self) -> Iterator[str]:
        """A request takes the only place, so that others wait. Yields its id; at the end it is cancelled."""
        request_id = self.ask(f"/queue/{wire.IMAGE_TO_IMAGE}", "POST", slow()).body["request_id"]
        self.wait_until(request_id, "IN_PROGRESS")
        try:
            yield request_id
        finally:
            self.ask(f"/queue/{wire.APPLICATION}/requests/{request_id}/cancel", "PUT")
            self.wait_until(request_id, "COMPLETED")
