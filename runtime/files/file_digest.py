"""The SHA-256 of a file's content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runtime.low_priority import call_at_low_priority

_CHUNK = 1 << 20
_LARGE = 64 << 20  # hashing more than this many bytes slows running jobs


def file_digest(path: Path, check_cancelled: Callable[[], None]) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits. A large file is hashed at low priority.

    Raises OSError, and what `check_cancelled` raises, which is called for every megabyte.
    """
    hash_file = partial(_sha256, path, check_cancelled)
    return call_at_low_priority(hash_file) if path.stat().st_size > _LARGE else hash_file()


def _sha256(path: Path, check_cancelled: Callable[[], None]) -> str:
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            check_cancelled()
            digest.update(chunk[:count])
    return digest.hexdigest()
