"""The result of a request: images, seed, timings, latents."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lorikeet.schema import ImageToImageOutput

Latents = npt.NDArray[np.float32]

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a finished request.

    `files`: the encoded images, as the server sent them. `latents`: float32 [N, 4, h, w]; `per_pass_latents`: float32
    [steps, N, 4, h, w]; each is None unless requested.
    """

    request_id: str
    response: ImageToImageOutput
    files: list[bytes]
    latents: Latents | None = None
    per_pass_latents: Latents | None = None

    @cached_property
    def images(self) -> list[Image.Image]:
        """The decoded images."""
        return [Image.open(io.BytesIO(content)) for content in self.files]

    @property
    def seed(self) -> int:
        """The seed of the images. The same request with this seed gives the same images."""
        return self.response.seed

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage."""
        return self.response.timings

    def save(self, destination: str | Path) -> list[Path]:
        """Write the encoded files, without re-encoding them, and return their paths.

        A path that ends in .png, .jpg or .jpeg names the file; several images get `-0`, `-1`, ... after the stem. Any
        other path names a folder, created if absent, for files named `<seed>-<i>`.
        """
        path = Path(destination)
        paths = self._file_paths(path) if path.suffix.lower() in _IMAGE_SUFFIXES else self._folder_paths(path)
        for target, content in zip(paths, self.files, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return paths

    def _file_paths(self, path: Path) -> list[Path]:
        if len(self.files) == 1:
            return [path]
        return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(len(self.files))]

    def _folder_paths(self, folder: Path) -> list[Path]:
        return [folder / f"{self.seed}-{i}{_suffix(content)}" for i, content in enumerate(self.files)]


def _suffix(content: bytes) -> str:
    return ".png" if content.startswith(b"\x89PNG") else ".jpg"
