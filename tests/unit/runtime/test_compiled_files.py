"""Compiled models on disk: complete or absent, within the limit, the least recently used removed first."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.engines.openvino.compiled_files import CompiledFiles

PLENTY = 1 << 20


def _age(folder: Path, seconds: int) -> None:
    """Make all files older."""
    for path in folder.iterdir():
        when = path.stat().st_mtime - seconds
        os.utime(path, (when, when))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files = CompiledFiles(tmp_path / "compiled", PLENTY)
    assert files.read("a") is None
    files.write("a", b"first")
    files.write("b", b"second")
    assert CompiledFiles(tmp_path / "compiled", PLENTY).read("a") == b"first"
    files.write("a", b"third")
    assert (files.read("a"), files.read("b")) == (b"third", b"second")


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [_flip, lambda data: data[:-1], lambda data: data[:9], lambda _: b""])
def test_a_damaged_file_is_not_read(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    files = CompiledFiles(tmp_path, PLENTY)
    files.write("a", b"content")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert files.read("a") is None
    assert f"{path} is damaged" in caplog.text
    files.write("a", b"content")
    assert files.read("a") == b"content"


def test_the_least_recently_used_files_are_removed(tmp_path: Path) -> None:
    files = CompiledFiles(tmp_path, 3 * 1032)  # a file has a digest of 32 bytes too
    for name in "abc":
        files.write(name, name.encode() * 1000)
        _age(tmp_path, 100)
    assert files.read("a") is not None
    files.write("d", b"d" * 1000)
    assert [name for name in "abcd" if files.read(name) is not None] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * 1032


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    files = CompiledFiles(tmp_path, 2000)
    (tmp_path / "aa.123").write_bytes(b"x" * 1500)
    _age(tmp_path, 100)
    files.write("a", b"a" * 1000)
    assert len(list(tmp_path.iterdir())) == 1 and files.read("a") is not None


def test_what_exceeds_the_limit_is_not_kept(tmp_path: Path) -> None:
    files = CompiledFiles(tmp_path, 1031)
    files.write("a", b"a")
    files.write("b", b"b" * 1000)
    assert files.read("a") == b"a" and files.read("b") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    files = CompiledFiles(tmp_path / "file", PLENTY)
    files.write("a", b"a")
    assert "cannot keep a compiled model" in caplog.text
    assert files.read("a") is None


def test_a_file_of_a_folder_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CompiledFiles(tmp_path, PLENTY)
    files.write("a", b"content")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    assert files.read("a") == b"content"
