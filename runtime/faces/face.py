"""What finds and embeds faces, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]
CheckCancelled = Callable[[], None]
POINTS = 5  # the eyes, the nose, and the corners of the mouth
SIDE = 112  # of the picture of a face that is embedded


class FaceError(ValueError):
    """The networks of a pack cannot be used. The message is for the client."""


@dataclass(frozen=True, eq=False)
class Face:
    """box: left, top, right, bottom. points: [5, 2], x and y of each. All in pixels of the picture."""

    box: Array
    points: Array
    score: float

    @property
    def area(self) -> float:
        left, top, right, bottom = map(float, self.box)
        return (right - left) * (bottom - top)


class FaceNetworks(Protocol):
    """The two networks of a pack. Both methods raise FaceError, and what `check_cancelled` raises."""

    def detect(self, pixels: Pixels, check_cancelled: CheckCancelled) -> Sequence[Face]:
        """The faces in a picture [H, W, 3]."""

    def embed(self, face: Pixels, check_cancelled: CheckCancelled) -> Array:
        """The embedding [F] of an aligned face [112, 112, 3], not normalized."""
