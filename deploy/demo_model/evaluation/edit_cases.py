"""Evaluation cases: held-out pictures with prompts that change the thing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

from PIL import Image

from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import held_out, random_scene, with_other_thing
from deploy.demo_model.world.scene import Scene, draw

SEED = 20261122


@dataclass(frozen=True)
class EditCase:
    """The scene `before`, and a `prompt` for the scene `after`: another thing in front of the same background."""

    before: Scene
    after: Scene
    prompt: str

    @cached_property
    def picture(self) -> Image.Image:
        """The picture of `before`, to start from."""
        return draw(self.before)

    @property
    def colour(self) -> str:
        """The colour that the prompt names for the thing."""
        return self.after.things[0].colour

    @property
    def kind(self) -> str:
        """The kind of thing that the prompt names."""
        return self.after.things[0].kind


def held_out_cases(count: int, seed: int = SEED) -> list[EditCase]:
    """`count` cases whose scenes `before` and `after` are both held out."""
    random = Random(seed)
    cases: list[EditCase] = []
    while len(cases) < count:
        before = random_scene(random, alone=True)
        after = with_other_thing(before, random)
        if held_out(before) and held_out(after):
            cases.append(EditCase(before, after, caption(after, random)))
    return cases
