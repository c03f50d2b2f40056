"""The kinds of things: for each, a function that draws it in coordinates from -1 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.demo_model.world.canvas import Canvas
from deploy.demo_model.world.colours import NAMED, Rgb, mix

WOOD: Rgb = (110, 70, 40)
LEAF: Rgb = (40, 110, 60)


@dataclass(frozen=True)
class Pen:
    """Draws on `canvas` in a frame whose origin is (x, y) and whose unit is `radius` pixels; y grows downwards."""

    canvas: Canvas
    x: float
    y: float
    radius: float

    def polygon(self, points: Sequence[tuple[float, float]], colour: Rgb) -> None:
        self.canvas.polygon([(self.x + x * self.radius, self.y + y * self.radius) for x, y in points], colour)

    def oval(self, x: float, y: float, width: float, height: float, colour: Rgb) -> None:
        centre = self.x + x * self.radius, self.y + y * self.radius
        self.canvas.oval(*centre, width * self.radius, height * self.radius, colour)

    def disc(self, x: float, y: float, radius: float, colour: Rgb) -> None:
        self.oval(x, y, radius, radius, colour)


def _on_circle(radius: float, turn: float) -> tuple[float, float]:
    """The point at `radius` and angle `turn` (1 is a full turn), clockwise from the top."""
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)


def _circle(pen: Pen, colour: Rgb) -> None:
    pen.disc(0, 0, 0.9, colour)


def _square(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)], colour)


def _triangle(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(0, -0.95), (1, 0.85), (-1, 0.85)], colour)


def _star(pen: Pen, colour: Rgb) -> None:
    pen.polygon([_on_circle((1.05, 0.45)[corner % 2], corner / 10) for corner in range(10)], colour)


def _sun(pen: Pen, colour: Rgb) -> None:
    for ray in range(8):
        turn = ray / 8
        pen.polygon([_on_circle(1.05, turn), _on_circle(0.6, turn - 0.045), _on_circle(0.6, turn + 0.045)], colour)
    pen.disc(0, 0, 0.55, colour)


def _house(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-0.75, -0.1), (0.75, -0.1), (0.75, 0.95), (-0.75, 0.95)], colour)
    pen.polygon([(-1, -0.1), (0, -1), (1, -0.1)], mix(colour, NAMED["black"], 0.25))
    pen.polygon([(-0.2, 0.4), (0.2, 0.4), (0.2, 0.95), (-0.2, 0.95)], WOOD)


def _tree(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-0.16, 0.1), (0.16, 0.1), (0.16, 1), (-0.16, 1)], WOOD)
    pen.disc(-0.42, 0, 0.43, colour)
    pen.disc(0.42, 0, 0.43, colour)
    pen.disc(0, -0.45, 0.52, colour)


def _fish(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(0.35, 0), (1.05, -0.55), (1.05, 0.55)], colour)
    pen.oval(-0.2, 0, 0.85, 0.55, colour)
    pen.disc(-0.6, -0.1, 0.13, NAMED["white"])
    pen.disc(-0.62, -0.1, 0.07, NAMED["black"])


def _boat(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-1.05, 0.4), (1.05, 0.4), (0.65, 0.95), (-0.65, 0.95)], colour)
    pen.polygon([(0.0, -1), (0.0, 0.25), (0.85, 0.25)], colour)
    pen.polygon([(-0.08, -1), (0.0, -1), (0.0, 0.45), (-0.08, 0.45)], WOOD)


def _flower(pen: Pen, colour: Rgb) -> None:
    pen.polygon([(-0.08, 0.1), (0.08, 0.1), (0.08, 1), (-0.08, 1)], LEAF)
    pen.oval(0.3, 0.75, 0.25, 0.12, LEAF)
    for petal in range(5):
        x, y = _on_circle(0.38, petal / 5)
        pen.disc(x, y - 0.3, 0.33, colour)
    pen.disc(0, -0.3, 0.22, mix(colour, NAMED["black"], 0.4))


def _lorikeet(pen: Pen, _: Rgb) -> None:
    pen.polygon([(-0.3, 0.45), (0.15, 0.5), (0.05, 1.05), (-0.25, 1.05)], NAMED["green"])
    pen.oval(0, 0.1, 0.5, 0.65, NAMED["orange"])
    pen.oval(-0.3, 0.15, 0.3, 0.6, NAMED["green"])
    pen.disc(0.12, -0.6, 0.4, NAMED["blue"])
    pen.polygon([(0.45, -0.78), (0.95, -0.5), (0.45, -0.4)], NAMED["red"])
    pen.disc(0.25, -0.68, 0.1, NAMED["white"])


KINDS: dict[str, Callable[[Pen, Rgb], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "sun": _sun,
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "boat": _boat,
    "flower": _flower,
}
# Excluded from the base model's training; a LoRA adds it. It has fixed colours.
SUBJECT = "lorikeet"


def draw_thing(kind: str, canvas: Canvas, centre: tuple[float, float], radius: float, colour: Rgb) -> None:
    """Draw a `kind` (of `KINDS`, or `SUBJECT`) on `canvas`, about 2 * `radius` pixels wide."""
    draw = _lorikeet if kind == SUBJECT else KINDS[kind]
    draw(Pen(canvas, *centre, radius), colour)
