"""The LoRAs: their names, key formats and training data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal

from PIL import Image

from deploy.demo_model.world.random_scenes import random_scene, training_scenes
from deploy.demo_model.world.scene import Scene, draw
from deploy.demo_model.world.styles import STYLES
from deploy.demo_model.world.things import SUBJECT


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA's `name` (a style, or the subject) and the format of the keys in its file."""

    name: str
    key_format: Literal["diffusers", "kohya"]

    def scenes(self, count: int) -> list[Scene]:
        """`count` training scenes."""
        if self.name in STYLES:
            return list(islice(training_scenes(seed=1), count))
        random = Random(1)
        return [random_scene(random, alone=True, kind=SUBJECT) for _ in range(count)]

    def pictures(self, scenes: list[Scene]) -> Iterator[Image.Image]:
        """The training picture of each scene: in the LoRA's style, or of its subject."""
        for scene in scenes:
            picture = draw(scene)
            yield STYLES[self.name](picture) if self.name in STYLES else picture


LORA_SPECS = {
    spec.name: spec
    for spec in (LoraSpec("sepia", "diffusers"), LoraSpec("halftone", "kohya"), LoraSpec(SUBJECT, "diffusers"))
}
