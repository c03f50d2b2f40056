"""A PostgreSQL server of its own on a free port, from Debian's package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from typing_extensions import Self


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None when the package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


class Postgres:
    """A server with an empty database `lorikeet`, in `folder`. It ends at exit."""

    def __init__(self, folder: Path) -> None:
        programs = postgres_programs()
        assert programs is not None, "apt-get install postgresql"
        self._programs, self._folder = programs, folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            shutil.chown(self._folder, "postgres")
            for parent in self._folder.parents:
                if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        data = self._folder / "data"
        self._run("initdb", "--pgdata", str(data), "--auth", "trust", "--username", "lorikeet", "--no-sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        options = ["-D", str(data), "-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        self._process = subprocess.Popen(
            self._command("postgres", *options, "-c", "fsync=off"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._wait()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "lorikeet", "lorikeet")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)  # fast shutdown: disconnects the clients
        self._process.wait(timeout=30)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://lorikeet@127.0.0.1:{self._port}/lorikeet"

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            ready = self._command("pg_isready", "-h", "127.0.0.1", "-p", str(self._port), "-q")
            if subprocess.run(ready, cwd="/").returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("PostgreSQL did not get ready")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    def _command(self, program: str, *arguments: str) -> list[str]:
        as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        return [*(as_user if os.geteuid() == 0 else []), str(self._programs / program), *arguments]
