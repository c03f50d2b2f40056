"""Model files appear complete or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.models import Models


def test_an_interruption_leaves_no_partial_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_source: Path, target: Path) -> None:
        target.mkdir()
        (target / "half.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Models(tmp_path, True, print).checkpoint("sd15")
    assert list(tmp_path.iterdir()) == []
