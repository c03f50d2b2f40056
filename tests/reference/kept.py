"""References that are kept on disk from run to run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.tiny.folder import VERSION

LIBRARIES = ("accelerate", "diffusers", "numpy", "peft", "pillow", "safetensors", "torch", "transformers")


def kept(tiny: Path, asked: object, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The array that `make` makes of `asked`: made once a machine for the code, libraries and tiny checkpoints.

    `asked` may hold dataclasses, pictures, and paths under `tiny`.
    """
    file = _folder() / f"{sha256(_told(tiny, asked).encode()).hexdigest()}.npy"
    if not file.is_file():
        made = make()
        partial = file.with_name(f"{file.stem}.partial-{os.getpid()}.npy")
        np.save(partial, made)
        partial.rename(file)
    found: NDArray[np.float32] = np.load(file)
    return found


@cache
def _folder() -> Path:
    """Of the reference's source, the libraries' versions, and the writer of the tiny checkpoints."""
    digest = sha256(VERSION.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library}={version(library)}\n".encode())
    folder = Path(tempfile.gettempdir()) / f"lorikeet-references-{digest.hexdigest()[:16]}"
    folder.mkdir(exist_ok=True)
    return folder


def _told(tiny: Path, asked: Any) -> str:
    """A text that differs where what is asked differs."""
    if isinstance(asked, Image.Image):
        return f"{asked.mode} {asked.size} {sha256(asked.tobytes()).hexdigest()}"
    if isinstance(asked, Path):
        return repr(str(asked.relative_to(tiny)))
    if isinstance(asked, tuple):
        return f"({', '.join(_told(tiny, part) for part in asked)})"
    if is_dataclass(asked):
        parts = (f"{field.name}={_told(tiny, getattr(asked, field.name))}" for field in fields(asked))
        return f"{type(asked).__name__}({', '.join(parts)})"
    return repr(asked)
