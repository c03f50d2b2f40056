"""Paths with other alphabets, in processes whose file system encoding is ASCII.

Triton's stub starts Python in the C locale, and ignores PYTHONUTF8. There, a path of UTF-8 bytes is a str in which a
surrogate stands for each byte outside ASCII (PEP 383). Opening such a path works; JSON, messages and libraries written
in Rust need text.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator


def path_of(text: str) -> Path:
    """The path whose bytes are the text in UTF-8. Raises UnicodeEncodeError for a text that is not valid Unicode."""
    return Path(os.fsdecode(text.encode()))


def path_text(path: Path) -> str:
    """The path as text. Bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode(errors="replace")


def _validated(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str):
        return path_of(value)
    raise ValueError("expected a path")


# The type of a field with a path that may have other alphabets. In JSON it is text.
LocalPath = Annotated[Path, PlainValidator(_validated), PlainSerializer(path_text, return_type=str, when_used="json")]


@contextmanager
def ascii_folder(folder: Path) -> Iterator[Path]:
    """A path of ASCII characters that leads to the folder: a temporary link, or the folder itself."""
    if str(folder).isascii():
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "folder"
        link.symlink_to(folder)
        yield link
