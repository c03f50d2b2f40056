"""The kinds of backgrounds: plain and patterned ones of a named colour, and two landscapes."""

from __future__ import annotations

from deploy.demo_model.world.canvas import SIDE, Canvas
from deploy.demo_model.world.colours import NAMED, Rgb, mix

TEXTURES = ("plain", "striped", "dotted", "gradient")
SKY: Rgb = (150, 208, 240)
LANDSCAPES: dict[str, Rgb] = {"meadow": (96, 176, 80), "sea": (30, 90, 165)}
HORIZON = 80
PERIOD = 16  # of stripes and dots, in pixels; two cells of the latents


def draw_background(texture: str, colour: str) -> Canvas:
    """A canvas with the background: `texture` of `TEXTURES` in a named `colour`, or a key of `LANDSCAPES` and ""."""
    canvas = Canvas(main_colours(texture, colour)[0])
    if texture in LANDSCAPES:
        canvas.band(HORIZON, SIDE, LANDSCAPES[texture])
        return canvas
    base, tone = NAMED[colour], _tone(colour)
    if texture == "striped":
        for left in range(0, SIDE, PERIOD):
            canvas.polygon([(left, 0), (left + 8, 0), (left + 8, SIDE), (left, SIDE)], tone)
    elif texture == "dotted":
        for row in range(8, SIDE, PERIOD):
            for column in range(8, SIDE, PERIOD):
                canvas.disc(column, row, 4, tone)
    elif texture == "gradient":
        for top in range(0, SIDE, 2):
            canvas.band(top, top + 2, mix(base, tone, 1.5 * top / SIDE))
    return canvas


def main_colours(texture: str, colour: str) -> list[Rgb]:
    """The colours that fill most of the background."""
    return [SKY, LANDSCAPES[texture]] if texture in LANDSCAPES else [NAMED[colour]]


def _tone(colour: str) -> Rgb:
    """A second tone of a colour, near enough to have the same name."""
    return mix(NAMED[colour], NAMED["white" if colour == "black" else "black"], 0.16)
