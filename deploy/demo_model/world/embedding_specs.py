"""The textual inversions: a new token each, for one kind of thing in one colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import clear_colours, held_out, random_scene
from deploy.demo_model.world.scene import Scene


@dataclass(frozen=True)
class EmbeddingSpec:
    """An embedding's `name`, how many `vectors` it has, and the `kind` and `colour` of the thing that it means."""

    name: str
    kind: str
    colour: str
    vectors: int

    @property
    def token(self) -> str:
        """The token in a prompt, and the key of the tensor in the file."""
        return f"<{self.name}>"

    @property
    def tokens(self) -> list[str]:
        """One token for each vector, numbered as in diffusers."""
        return [self.token, *(f"{self.token}_{index}" for index in range(1, self.vectors))]

    def scenes(self, random: Random) -> Iterator[Scene]:
        """Endless training scenes of only this thing, without held-out ones."""
        while True:
            scene = random_scene(random, alone=True, kind=self.kind)
            if self.colour in clear_colours(scene.texture, scene.background):
                scene = replace(scene, things=(replace(scene.things[0], colour=self.colour),))
                if not held_out(scene):
                    yield scene

    def caption(self, scene: Scene, random: Random, word: str) -> str:
        """A caption of one of its scenes, with `word` in place of colour and kind."""
        return caption(scene, random).replace(f"{self.colour} {self.kind}", word)


EMBEDDING_SPECS = {spec.name: spec for spec in (EmbeddingSpec("keepsake", "boat", "purple", vectors=2),)}
