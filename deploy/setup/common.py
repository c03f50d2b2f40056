"""Shared by the set-up steps: one-line errors, completion markers and logged commands."""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LOG_TAIL_LINES = 25
# PYTHONPATH and PYTHONHOME would shadow the packages of the new environment
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


class SetupError(Exception):
    """A failure with a one-line message for the user."""


def say(line: str) -> None:
    print(f"lorikeet: {line}", file=sys.stderr, flush=True)


def shown(path: Path) -> str:
    """The path as a person would type it from the repository root."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def digest(*files: Path, salt: str = "") -> str:
    """The SHA-256 of `salt` and the contents of `files`; a missing file counts as empty."""
    total = hashlib.sha256(salt.encode())
    for file in files:
        content = file.read_bytes() if file.exists() else b""
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def is_complete(stamp: Path, key: str) -> bool:
    return stamp.exists() and stamp.read_text() == key


def mark_complete(stamp: Path, key: str) -> None:
    """Written last and atomically, so that its presence means that the step is complete."""
    part = stamp.with_name(stamp.name + ".part")
    part.write_text(key)
    part.replace(stamp)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the file lock, so that one set-up runs at a time. The kernel releases it when the process ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another set-up is running here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Step:
    """Runs commands: one progress line each, output to a log; an error shows the end of the log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def run(self, what: str, *command: str | Path, passes: tuple[int, ...] = (0,)) -> None:
        say(f"{what} ...")
        begin = time.monotonic()
        arguments = [str(part) for part in command]
        with self._log.open("a") as log:
            log.write(f"\n$ {' '.join(arguments)}\n")
            log.flush()
            done = subprocess.run(
                arguments,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
            )
        if done.returncode not in passes:
            tail = self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            print("\n".join(f"  | {line}" for line in tail), file=sys.stderr)
            raise SetupError(f"failed: {what} (exit {done.returncode}); the whole log is {shown(self._log)}")
        seconds = time.monotonic() - begin
        if seconds >= 10:
            say(f"  done in {seconds:.0f} s")
