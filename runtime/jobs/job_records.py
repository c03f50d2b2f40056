"""The records of the job table, as arrays in one mmapped file. `job_table` says what they mean and who writes them."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HEADER = np.dtype([("draining", "u1"), ("key", "u1", 32)], align=True)
_BEAT = np.dtype(
    [
        ("pid", "i8"),
        ("at", "f8"),
        ("since", "f8"),
        ("ready", "u1"),
        ("queued", "u4"),
        ("idle_beats", "u4"),
        ("running", "S64"),
        ("running_since", "f8"),
    ],
    align=True,
)
_JOB = np.dtype(
    [
        ("id", "u8"),
        ("at", "f8"),
        ("deadline", "f8"),
        ("lease", "f8"),
        ("request", "S32"),
        ("token", "S32"),
        ("handle", "S32"),
    ],
    align=True,
)
_PROGRESS = np.dtype([("id", "u8"), ("at", "f8"), ("step", "u4"), ("of", "u4"), ("state", "u1")], align=True)
_CANCEL = np.dtype("u8")
_RENEWAL = np.dtype([("id", "u8"), ("at", "f8")], align=True)
_ALIGNMENT = 64  # bytes: each array begins at a cache line of its own


@dataclass(frozen=True)
class JobRecords:
    """`header` [1], `beats` [stages], `jobs`, `cancels` and `renewals` [slots], `progress` [slots, stages].

    They are arrays with named fields, which numpy's type hints do not describe. Other processes see every change.
    """

    header: Any
    beats: Any
    jobs: Any
    progress: Any
    cancels: Any
    renewals: Any


def open_records(path: Path, *, stages: int, slots: int) -> JobRecords:
    """The records in the file `path`, which is created with zeros if it does not exist. Raises OSError."""
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "header": (_HEADER, (1,)),
        "beats": (_BEAT, (stages,)),
        "jobs": (_JOB, (slots,)),
        "progress": (_PROGRESS, (slots, stages)),
        "cancels": (_CANCEL, (slots,)),
        "renewals": (_RENEWAL, (slots,)),
    }
    sizes = {name: _aligned(dtype.itemsize * int(np.prod(shape))) for name, (dtype, shape) in layout.items()}
    memory = _map(path, sum(sizes.values()))
    arrays: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in layout.items():
        arrays[name] = np.frombuffer(memory, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += sizes[name]
    return JobRecords(**arrays)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _map(path: Path, nbytes: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(descriptor, nbytes)
        return mmap.mmap(descriptor, nbytes)
    finally:
        os.close(descriptor)
