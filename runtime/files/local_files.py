"""Finds a local file or folder by the name in a request."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from lorikeet.net.url import trim
from runtime.files.local_path import path_of


def find_local(roots: Iterable[Path], name: str) -> Path | None:
    """The resolved path that a name has in one of the folders; None: no folder has it.

    A path that leads out of the folder (`..`, a symbolic link) gives the same answer as a missing one: the answer must
    not say which files exist. Raises ValueError for a NUL character.
    """
    for root in roots:
        for spelling in _spellings(name):
            try:
                path = (root / path_of(spelling)).resolve()
                if path.is_relative_to(root) and path.exists():
                    return path
            except (OSError, RuntimeError, UnicodeError):  # a name too long, a loop of links, no permission, no text
                continue
    return None


def _spellings(name: str) -> list[str]:
    """The name, without white space around it, and with composed and decomposed letters: a Mac stores "é" as two."""
    trimmed = trim(name)
    spellings = [name, trimmed]
    if not trimmed.isascii():
        spellings += [unicodedata.normalize("NFC", trimmed), unicodedata.normalize("NFD", trimmed)]
    return [spelling for spelling in dict.fromkeys(spellings) if spelling]
