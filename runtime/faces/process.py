"""Runs the networks of packs in a process of their own: they are untrusted, and must not end a stage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

from runtime.faces.face import POINTS, Array, CheckCancelled, Face, FaceError, Pixels
from runtime.faces.geometry import resize
from runtime.faces.scrfd import LARGEST_STRIDE, MOST_SIDE
from runtime.files.stored_file import StoredFile, check_unchanged

_SIDES = (640, 512, 384, 256)  # in which a face is looked for; large faces are found in small pictures alone
_SECONDS = 60.0  # of one answer; the published networks are loaded in some seconds
_POLL_SECONDS = 0.1
_MOST_ANSWER = 4 << 20  # bytes
_PACKAGES = ("onnx", "openvino")
_FARTHEST = 1e5  # pixels; with larger numbers, an aligned face could have none
_VALUES = 1 + 4 + 2 * POINTS  # of a face: its score, box and points


class FaceProcess:
    """A `FaceNetworks`. The process keeps the networks of the last pack. One thread uses it."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._loaded: Sequence[StoredFile] = ()
        self._sides: Sequence[int] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def load(self, files: Sequence[StoredFile], check_cancelled: CheckCancelled) -> None:
        """Use the pack in these ONNX files. Raises FaceError, FileChangedError, and what `check_cancelled` raises."""
        if files == self._loaded and self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._start()
        paths = [str(file.path) for file in files]
        side = self._ask({"action": "load", "paths": paths}, b"", check_cancelled).get("side")
        for file in files:
            check_unchanged(file.path, file.fingerprint)
        self._sides = (_checked_side(side),) if side else _SIDES
        self._loaded = files

    def detect(self, pixels: Pixels, check_cancelled: CheckCancelled) -> Sequence[Face]:
        """In the largest of the sizes in which some are found, as ComfyUI's nodes look for them."""
        for side in self._sides:
            height, width = pixels.shape[:2]
            longest = max(height, width)
            small = resize(pixels, max(width * side // longest, 1), max(height * side // longest, 1))
            square = np.zeros((side, side, 3), np.uint8)
            square[: small.shape[0], : small.shape[1]] = small
            answer = self._ask({"action": "detect", "side": side}, square.tobytes(), check_cancelled)
            # InsightFace scales both axes as the height was scaled.
            if found := [_read_face(values, small.shape[0] / height) for values in _list(answer.get("faces"))]:
                return found
        return ()

    def embed(self, face: Pixels, check_cancelled: CheckCancelled) -> Array:
        answer = self._ask({"action": "embed", "side": len(face)}, face.tobytes(), check_cancelled)
        return _numbers(answer.get("embedding"))

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
        self._process, self._connection, self._loaded = None, None, ()

    def _start(self) -> None:
        if any(find_spec(name) is None for name in _PACKAGES):
            raise FaceError("this server cannot find faces: its operator installs the extra `faceid`")
        self._connection, theirs = Pipe()
        python = _python()
        worker = (python, "-m", "runtime.faces.worker", str(theirs.fileno()), str(self._threads))
        self._process = subprocess.Popen(
            [python, "-m", "runtime.supervisor.exit_with_parent", "SIGKILL", str(os.getpid()), *worker],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def _ask(self, question: dict[str, Any], content: bytes, check_cancelled: CheckCancelled) -> dict[str, Any]:
        """The answer. A process that gives none is ended."""
        assert self._connection is not None
        try:
            self._connection.send_bytes(json.dumps(question).encode())
            self._connection.send_bytes(content)
            deadline = time.monotonic() + _SECONDS
            while not self._connection.poll(_POLL_SECONDS):
                check_cancelled()
                if time.monotonic() > deadline:
                    raise FaceError(f"its networks need more than {_SECONDS:g} s: expected those of a published pack")
            answer = json.loads(self._connection.recv_bytes(_MOST_ANSWER))
        except (EOFError, OSError, ValueError) as error:
            self.close()
            if isinstance(error, FaceError):
                raise
            raise FaceError(
                "its networks ended the process that ran them: expected those of a published pack"
            ) from error
        except BaseException:  # cancelled: the process may be in a long computation
            self.close()
            raise
        found: dict[str, Any] = answer if isinstance(answer, dict) else {}
        if "error" in found:
            raise FaceError(str(found["error"]))
        return found


def _python() -> str:
    """The interpreter of this environment. A stub of Triton may be another program, and finds it on PATH."""
    own = Path(sys.executable)
    return str(own) if own.name.startswith("python") else shutil.which("python3") or "python3"


def _checked_side(side: Any) -> int:
    if not isinstance(side, int) or side not in range(LARGEST_STRIDE, MOST_SIDE + 1, LARGEST_STRIDE):
        raise FaceError("its detector takes pictures of another size than a multiple of 32")
    return side


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_face(values: Any, scale: float) -> Face:
    numbers = _numbers(values)
    if len(numbers) != _VALUES or np.abs(numbers).max() > _FARTHEST:
        raise FaceError("its detector gives faces of another form than SCRFD's, or far outside of the picture")
    return Face(numbers[1:5] / scale, numbers[5:].reshape(POINTS, 2) / scale, float(numbers[0]))


def _numbers(values: Any) -> Array:
    """What the process has answered is as little trusted as the networks."""
    try:
        found = np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise FaceError("its networks give no numbers") from error
    if found.ndim != 1 or not np.isfinite(found).all():
        raise FaceError("its networks give values that are not finite numbers")
    return found
