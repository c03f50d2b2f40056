"""The named colours of the drawn world."""

from __future__ import annotations

from typing import TypeAlias

Rgb: TypeAlias = tuple[int, int, int]

NAMED: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (247, 138, 20),
    "yellow": (252, 220, 60),
    "green": (52, 160, 70),
    "blue": (38, 95, 215),
    "purple": (130, 50, 165),
    "pink": (248, 150, 200),
    "white": (245, 245, 245),
    "black": (28, 28, 32),
}
# RGB distance below which small areas look alike; a thing's distance to its background is larger.
CLEARLY_DIFFERENT = 125.0


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The linear mix of `first` and `share` (0 to 1) of `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def distance(first: Rgb, second: Rgb) -> float:
    """The Euclidean distance of two colours in RGB, 0 to 442."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)
