"""Reads files of an untrusted folder. It refuses names and links that lead out of the folder."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.json_file import read_json
from runtime.checkpoints.tokenizer_files import FAST_TOKENIZER, check_tokenizer
from runtime.files.located import Folder
from runtime.files.stored_file import file_fingerprint

_MAX_TOKENIZER = 32 << 20  # bytes of all its files; those of CLIP have 4 MB
_MAX_NAMES = 1000


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

    def names(self, place: str) -> list[str]:
        """The names in a folder, at most 1000; none when it cannot be read."""
        try:
            with os.scandir(self.inside(place)) as entries:
                return [entry.name for entry in islice(entries, _MAX_NAMES)]
        except OSError:
            return []

    def json(self, name: str) -> dict[str, Any]:
        return read_json(self.file(name), name)

    def tokenizer(self, name: str) -> Tokenizer:
        """CLIP's tokenizer: `tokenizer.json`, which is all that transformers 5 saves, or `vocab.json` and `merges.txt`.

        transformers reads the first when a folder has both.
        """
        has_fast = self.has(f"{name}/{FAST_TOKENIZER}")
        for required in (FAST_TOKENIZER,) if has_fast else ("vocab.json", "merges.txt"):
            self.file(f"{name}/{required}")
        folder = self.inside(name)
        places = [self.inside(f"{name}/{file.name}") for file in folder.iterdir()]
        files = sorted(place for place in places if place.is_file())
        if sum(file.stat().st_size for file in files) > _MAX_TOKENIZER:
            raise CheckpointError(
                f"{shorten(name, 100)} is too large for a tokenizer: expected at most {_MAX_TOKENIZER} bytes"
            )
        check_tokenizer(folder, shorten(name, 100))
        return Tokenizer(folder=folder, fingerprints=tuple(map(file_fingerprint, files)))
