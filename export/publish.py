"""Writes artifacts. An artifact is complete or absent, also after an interruption."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from runtime.artifacts.artifact import GRAPH_FILE, MANIFEST_FILE
from runtime.artifacts.manifest import Manifest
from runtime.artifacts.plan import PLAN_FILE
from runtime.artifacts.plan_manifest import PlanManifest

_PART = ".part-"  # begins the names of folders that are not complete


@contextmanager
def exporting(root: Path, show_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Exclude other exports to the artifacts' folder `root`, which is made when it is missing.

    Calls `show_waiting` when another export is running. Removes what killed exports left. Raises OSError.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show_waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in root.glob(f"{_PART}*"):
            shutil.rmtree(left)
        yield


def publish(root: Path, manifest: Manifest, compressed: bytes) -> Path:
    """Write a graph inside of `exporting`, instead of a damaged one if there is one. Returns its folder.

    Raises OSError.
    """
    return _publish(root, manifest.key.folder(root), {GRAPH_FILE: compressed}, manifest)


def publish_plan(root: Path, manifest: PlanManifest, compressed: bytes) -> Path:
    """Write a plan inside of `exporting`, instead of one that cannot be used. Returns its folder. Raises OSError."""
    return _publish(root, manifest.folder(root), {PLAN_FILE: compressed}, manifest)


def _publish(root: Path, place: Path, files: Mapping[str, bytes], manifest: BaseModel) -> Path:
    """The files are written into a temporary folder, which is then renamed."""
    with tempfile.TemporaryDirectory(prefix=_PART, dir=root) as temporary:
        made = Path(temporary) / "artifact"
        made.mkdir()
        for name, content in files.items():
            _write(made / name, content)
        _write(made / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode() + b"\n")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.rename(Path(temporary) / "damaged")
        made.rename(place)
    return place


def _write(path: Path, data: bytes) -> None:
    """Write a file that is on the disk before its folder is renamed."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
