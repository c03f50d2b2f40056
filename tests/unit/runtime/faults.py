"""Faults of the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn

import pytest


def raising(error: Exception) -> Callable[..., NoReturn]:
    """A function that raises the error."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


def fill_disk(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """From now on, writing to an open descriptor fails."""
    monkeypatch.setattr(os, "write", raising(OSError(number, os.strerror(number))))
