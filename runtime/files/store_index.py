"""The store's notes: facts under a key (a URL's digest and ETag, a local file's digest), one small file each.

A note is written under another name and renamed, so it is complete or absent. A note that a power loss damaged is no
JSON, and is ignored. There are at most `_MAX_NOTES`; the least recently used ones are removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from runtime.files.use_time import mark_used

NOTE = re.compile(r"[0-9a-f]{64}\.json")
_MAX_NOTES = 1 << 14  # on most disks 4 KB each
_PART = ".part-note"


class StoreIndex:
    """Notes in a folder, which exists. Reading one marks it as used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count: int | None = None  # of the notes; None: not counted yet

    def write(self, key: str, facts: dict[str, str]) -> None:
        """Replace the note of a key. Raises OSError. Only one thread of all processes at a time may call this."""
        note = self._note(key)
        if not note.exists():
            self._make_place()
        part = self._folder / _PART
        part.write_text(json.dumps(facts))  # not synced: `read` ignores a damaged note
        part.replace(note)

    def read(self, key: str) -> dict[str, str] | None:
        """The facts under the key, or None."""
        note = self._note(key)
        try:
            facts = json.loads(note.read_bytes())
        except (OSError, ValueError):
            return None
        with suppress(OSError):  # a disk that became read-only
            mark_used(note)
        is_note = isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values())
        return facts if is_note else None

    def _note(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(os.fsencode(key)).hexdigest() + ".json")

    def _make_place(self) -> None:
        """Count one more note. When there are too many, remove an eighth: the folder is then listed rarely."""
        if self._count is None or self._count >= _MAX_NOTES:
            notes = self._by_use()
            excess = len(notes) - (_MAX_NOTES - max(_MAX_NOTES // 8, 1)) if len(notes) >= _MAX_NOTES else 0
            for note in notes[:excess]:
                note.unlink(missing_ok=True)
            self._count = len(notes) - excess
        self._count += 1

    def _by_use(self) -> list[Path]:
        """All notes, the least recently used first."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if NOTE.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
        return [Path(path) for _, path in sorted(found)]
