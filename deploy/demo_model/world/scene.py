"""A scene: the description of a picture, and the function that draws it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from deploy.demo_model.world.backgrounds import draw_background
from deploy.demo_model.world.canvas import SIDE
from deploy.demo_model.world.colours import NAMED
from deploy.demo_model.world.things import draw_thing

# Half the width in pixels; "" is the default. The smallest thing spans six latent cells.
SIZES = {"small": 25.0, "": 33.0, "large": 42.0}
PLACES = {"": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)}
MARGIN = 8.0  # pixels of background around every thing


@dataclass(frozen=True)
class Thing:
    """A drawn thing: a kind, the name of its colour, and keys of `SIZES` and `PLACES`."""

    kind: str
    colour: str
    size: str = ""
    place: str = ""

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def centre(self) -> tuple[float, float]:
        """The centre in pixels: at the middle, or as far towards `place` as `MARGIN` allows."""
        reach = SIDE / 2 - MARGIN - self.radius * 1.05
        across, down = PLACES[self.place]
        return SIDE / 2 + across * reach, SIDE / 2 + down * reach


@dataclass(frozen=True)
class Scene:
    """A background (see `backgrounds`) and the things on it; the first is the main one."""

    texture: str
    background: str
    things: tuple[Thing, ...]


def draw(scene: Scene) -> Image.Image:
    """The picture of `scene`, RGB, `SIDE` x `SIDE`: equal scenes give equal pictures."""
    canvas = draw_background(scene.texture, scene.background)
    for thing in scene.things:
        draw_thing(thing.kind, canvas, thing.centre, thing.radius, NAMED[thing.colour])
    return canvas.finish()
