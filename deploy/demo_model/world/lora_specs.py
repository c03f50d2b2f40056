"""What each LoRA is taught: pictures that the base model does not make, with captions as the base model knows them."""

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
    """A LoRA's `name`, how its file names the layers, and its pictures: in a style, or of the subject."""

    name: str
    naming: Literal["diffusers", "kohya"]

    def scenes(self, count: int) -> list[Scene]:
        """`count` scenes to learn from."""
        if self.name in STYLES:
            return list(islice(training_scenes(seed=1), count))
        random = Random(1)
        return [random_scene(random, alone=True, kind=SUBJECT) for _ in range(count)]

    def pictures(self, scenes: list[Scene]) -> Iterator[Image.Image]:
        """The scenes as the LoRA shall paint them."""
        for scene in scenes:
            picture = draw(scene)
            yield STYLES[self.name](picture) if self.name in STYLES else picture


LORA_SPECS = {
    spec.name: spec
    for spec in (LoraSpec("sepia", "diffusers"), LoraSpec("halftone", "kohya"), LoraSpec(SUBJECT, "diffusers"))
}
