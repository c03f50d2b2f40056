"""A server with low limits, a folder of traps, and two web servers that answer with what does harm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local_server import LocalServer
from tests.server.hostile import encoded
from tests.unit.runtime.web import Web, endless, endless_headers, redirect, reply

FETCH_SECONDS = 8
MAX_FILE = 64 << 20
_LORA = Path("loras", "sd15", "peft.safetensors")


@dataclass(frozen=True)
class Guarded:
    """A running server, and what its requests may name.

    `inside`: a web server that may be asked. `outside`: one that may not. `allowed`: a folder that requests may name,
    out of which links lead.
    """

    server: LocalServer
    inside: Web
    outside: Web
    allowed: Path


@contextmanager
def guarded_server(tiny: Path, folder: Path) -> Iterator[Guarded]:
    """A server with its files in `folder`, and without the Hub. Fails when somebody asked the web server outside."""
    allowed = _write_traps(folder, tiny)
    inside, outside = Web(), Web()
    try:
        _add_answers(inside, outside, (tiny / _LORA).read_bytes())
        values = {
            "local_paths": f"{tiny}:{allowed}",
            "store": str(folder / "store"),
            "precision": "float32",
            "fetch_allow": inside.host,
            "fetch_seconds": str(FETCH_SECONDS),
            "max_file_bytes": str(MAX_FILE),
            "max_image_bytes": str(MAX_FILE // 4),
            "max_pixels": str(512 * 512),
        }
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("HF_HUB_OFFLINE", "1")
            with LocalServer(folder / "server.log", values) as server:
                yield Guarded(server, inside, outside, allowed)
        assert not outside.seen
    finally:
        inside.stop()
        outside.stop()


def _write_traps(folder: Path, tiny: Path) -> Path:
    """A folder that requests may name. Links in it lead to files beside it that would do."""
    allowed, secrets = folder / "allowed", folder / "secrets"
    allowed.mkdir()
    secrets.mkdir()
    (secrets / "picture.png").write_bytes(encoded())
    (secrets / "lora.safetensors").write_bytes((tiny / _LORA).read_bytes())
    shutil.copytree(tiny / "sd15", secrets / "checkpoint")
    (allowed / "way_out").symlink_to(secrets)
    for name in ("picture.png", "lora.safetensors"):
        (allowed / f"link-{name}").symlink_to(secrets / name)
    (allowed / "checkpoint").mkdir()
    for part in (secrets / "checkpoint").iterdir():
        (allowed / "checkpoint" / part.name).symlink_to(part)
    (allowed / "loop").symlink_to(allowed / "loop")
    os.mkfifo(allowed / "fifo")
    return allowed


def _add_answers(inside: Web, outside: Web, lora: bytes) -> None:
    port = outside.host.partition(":")[2]
    targets = {
        "plain": outside.url("/x"),
        "private": f"https://{outside.host}/x",
        "name": f"https://localhost:{port}/x",
        "metadata": "https://169.254.169.254/latest/meta-data",
        "file": "file:///etc/passwd",
        "circle": inside.url("/circle"),
    }
    inside.answers |= {f"/{name}": redirect(target) for name, target in targets.items()}
    inside.answers |= {
        "/png": reply(encoded()),
        "/lora": reply(lora),
        "/junk": reply(bytes(range(256))),
        "/empty": reply(),
        "/announced": reply(b"x", headers={"Content-Length": "10000000000"}),
        "/unannounced": endless(bytes(1 << 20)),
        "/trickle": endless(b"x", seconds=1),
        "/trickling-headers": endless_headers(1),
    }
