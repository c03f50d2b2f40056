"""Reads files of an untrusted folder. It refuses names and links that lead out of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.checks import CheckpointError
from runtime.files.located import Folder
from runtime.files.store import file_fingerprint

_MAX_JSON = 8 << 20
_MAX_TOKENIZER = 32 << 20  # bytes of all its files; those of CLIP have 4 MB
_MAX_DEPTH = 32


class FolderReader:
    """Reads the files of a folder by their relative names. Its methods raise CheckpointError."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def inside(self, name: str) -> Path:
        """The resolved path of a name, which may not exist."""
        try:
            path = (self._folder.path / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL byte
            raise CheckpointError(f"{shorten(name, 100)} cannot be read") from error
        if not path.is_relative_to(self._folder.inside):
            raise CheckpointError(f"{shorten(name, 100)} is outside the folder of the checkpoint")
        return path

    def has(self, name: str) -> bool:
        """Whether the folder has a file, or anything else, of that name."""
        try:
            return (self._folder.path / name).exists()
        except OSError:  # the name is too long, or the folder may not be read
            return False

    def file(self, name: str) -> Path:
        path = self.inside(name)
        try:
            found = path.is_file()
        except OSError as error:  # the name is too long
            raise CheckpointError(f"{shorten(name, 100)} cannot be read") from error
        if not found:
            raise CheckpointError(f"its file {shorten(name, 100)} is missing")
        return path

    def json(self, name: str) -> dict[str, Any]:
        path = self.file(name)
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{name} is too large: expected at most {_MAX_JSON} bytes")
        try:
            value = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{name} is not JSON") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"{name} is not a JSON object")
        if _is_deep(value):
            raise CheckpointError(f"{name} is nested deeper than {_MAX_DEPTH} levels")
        return value

    def tokenizer(self, name: str) -> Tokenizer:
        self.file(f"{name}/vocab.json"), self.file(f"{name}/merges.txt")
        folder = self.inside(name)
        places = [self.inside(f"{name}/{file.name}") for file in folder.iterdir()]
        files = sorted(place for place in places if place.is_file())
        if sum(file.stat().st_size for file in files) > _MAX_TOKENIZER:
            raise CheckpointError(
                f"{shorten(name, 100)} is too large for a tokenizer: expected at most {_MAX_TOKENIZER} bytes"
            )
        return Tokenizer(folder=folder, fingerprints=tuple(map(file_fingerprint, files)))


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
    return bool(level)


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node
