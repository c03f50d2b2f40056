"""Reads files of a folder that a request named, none of which may lead out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.checks import CheckpointError
from runtime.files.located import Folder
from runtime.files.store import file_fingerprint

_MAX_JSON = 8 << 20
_MAX_TOKENIZER = 32 << 20  # bytes of all its files; CLIP's have 4 MB
_MAX_DEPTH = 32
_SHOWN = 100


class Reader:
    """Finds and reads a folder's files by their relative names. Raises CheckpointError for what it will not read."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def inside(self, name: str) -> Path:
        """Where a name leads: a place in the folder, whether something is there or not."""
        try:
            path = (self._folder.path / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte
            raise CheckpointError(f"{name[:_SHOWN]} cannot be read") from error
        if not path.is_relative_to(self._folder.inside):
            raise CheckpointError(f"{name[:_SHOWN]} leads out of the folder")
        return path

    def has(self, name: str) -> bool:
        """Whether the folder has a file, or anything else, of that name."""
        try:
            return (self._folder.path / name).exists()
        except OSError:  # too long a name, a folder that may not be read
            return False

    def file(self, name: str) -> Path:
        path = self.inside(name)
        try:
            found = path.is_file()
        except OSError as error:  # too long a name
            raise CheckpointError(f"{name[:_SHOWN]} cannot be read") from error
        if not found:
            raise CheckpointError(f"it has no {name[:_SHOWN]}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        path = self.file(name)
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{name} is too large for a configuration")
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
            raise CheckpointError(f"{name[:_SHOWN]} is too large for a tokenizer")
        return Tokenizer(folder=folder, stamps=tuple(map(file_fingerprint, files)))


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
    return bool(level)


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node
