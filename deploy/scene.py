"""A drawn picture to start from, so that the demo needs none."""

from __future__ import annotations

from PIL import Image, ImageDraw


def draw_scene(side: int = 256) -> Image.Image:
    """A sea under a sky with a sun, a boat and a hill: RGB, square."""
    scene = Image.new("RGB", (side, side), (120, 185, 235))
    draw = ImageDraw.Draw(scene)
    unit = side / 16
    draw.ellipse(_box(11, 1.5, 14, 4.5, unit), fill=(250, 210, 70))
    draw.polygon(_points([(0, 10), (3.5, 5), (8, 10)], unit), fill=(90, 150, 80))
    draw.rectangle(_box(0, 10, 16, 16, unit), fill=(40, 95, 160))
    draw.polygon(_points([(6, 11), (13, 11), (11.5, 13), (7.5, 13)], unit), fill=(190, 60, 50))
    draw.polygon(_points([(9.5, 4.5), (9.5, 10.5), (13, 10.5)], unit), fill=(245, 240, 230))
    draw.line(_points([(9.5, 4.5), (9.5, 11)], unit), fill=(70, 50, 40), width=max(1, round(unit / 4)))
    return scene


def _box(left: float, top: float, right: float, bottom: float, unit: float) -> tuple[float, float, float, float]:
    return left * unit, top * unit, right * unit, bottom * unit


def _points(points: list[tuple[float, float]], unit: float) -> list[tuple[float, float]]:
    return [(x * unit, y * unit) for x, y in points]
