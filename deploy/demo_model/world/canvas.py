"""A square canvas with antialiasing: it draws at a larger size and scales down."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from deploy.demo_model.world.colours import Rgb

SIDE = 128
OVERSAMPLING = 3


class Canvas:
    """Coordinates are pixels of the final picture, `SIDE` x `SIDE`; fractions are allowed."""

    def __init__(self, colour: Rgb) -> None:
        self._image = Image.new("RGB", (SIDE * OVERSAMPLING,) * 2, colour)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Rgb) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Rgb) -> None:
        """A filled circle around (x, y)."""
        self.oval(x, y, radius, radius, colour)

    def oval(self, x: float, y: float, width: float, height: float, colour: Rgb) -> None:
        """A filled ellipse around (x, y) with half axes `width` and `height`."""
        corners = (x - width, y - height, x + width, y + height)
        self._draw.ellipse([corner * OVERSAMPLING for corner in corners], fill=colour)

    def band(self, top: float, bottom: float, colour: Rgb) -> None:
        """A filled rectangle over the whole width."""
        self.polygon([(0, top), (SIDE, top), (SIDE, bottom), (0, bottom)], colour)

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self._image.resize((SIDE, SIDE), Image.Resampling.BOX)
