"""Request inputs that never repeat: no cached result of an earlier request can shorten a later one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

SCHEDULER = "DDIM"  # one UNet call for each step, here and in diffusers
NOISE_STRENGTH = 0.5
GUIDANCE_SCALE = 7.5
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
_THINGS = ("fish", "house", "boat", "tree", "castle", "bird", "flower", "mountain")
_PLACES = ("on a meadow", "by the sea", "under the moon", "in the rain", "at night", "in the snow")


@dataclass(frozen=True)
class UniqueRequest:
    """A prompt, a seed, and a PNG file's bytes."""

    prompt: str
    seed: int
    image: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The request's fields for the client, with the values that all requests share."""
        common = {"scheduler": SCHEDULER, "noise_strength": NOISE_STRENGTH, "guidance_scale": GUIDANCE_SCALE}
        return {"prompt": self.prompt, "seed": self.seed, "image_url": self.image, **common}


class UniqueRequests:
    """A sequence of requests. Each run gets an equal sequence."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def next(self, width: int, height: int | None = None) -> UniqueRequest:
        """The next request, with a picture of `width` x `height` pixels; square without `height`."""
        number = next(self._numbers)
        generator = np.random.default_rng(number)
        words = [str(generator.choice(group)) for group in (_COLOURS, _THINGS, _PLACES)]
        rough = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        rough.resize((width, height or width), Image.Resampling.BICUBIC).save(buffer, "PNG")
        return UniqueRequest(f"a {' '.join(words)}, number {number}", number, buffer.getvalue())
