"""The files of a store, for its tests."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from runtime.files.store import Store


def stored_names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").iterdir()}


def put(store: Store, content: bytes) -> str:
    """Put, and let go at once."""
    pins = store.pins()
    digest = store.put([content], pins).digest
    pins.release()
    return digest


def age(store: Store, folder: Path, digest: str, seconds: float) -> None:
    path = folder / "blobs" / digest
    os.utime(path, (time.time() - seconds,) * 2)


def descriptors() -> int:
    gc.collect()  # of other tests' files
    return len(list(Path("/proc/self/fd").iterdir()))
