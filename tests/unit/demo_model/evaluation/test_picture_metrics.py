"""The metrics are right on drawn pictures, whose content is known."""

from random import Random

import pytest
from PIL import Image

from deploy.demo_model.evaluation import picture_metrics
from deploy.demo_model.world.random_scenes import random_scene
from deploy.demo_model.world.scene import Scene, Thing, draw

ENOUGH = 0.98


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Thing, Image.Image]]:
    """Things alone on all kinds of backgrounds, and their pictures."""
    random = Random(7)
    scenes = [random_scene(random, alone=True) for _ in range(200)]
    return [(scene.things[0], draw(scene)) for scene in scenes]


def test_the_colour_of_a_drawn_object_is_found(drawn: list[tuple[Thing, Image.Image]]) -> None:
    right = [picture_metrics.object_colour(picture) == thing.colour for thing, picture in drawn]

    assert sum(right) >= ENOUGH * len(drawn)


def test_the_shape_of_a_drawn_object_is_found(drawn: list[tuple[Thing, Image.Image]]) -> None:
    right = [picture_metrics.object_shape(picture) == thing.kind for thing, picture in drawn]

    assert sum(right) >= ENOUGH * len(drawn)


def test_nothing_is_found_where_nothing_is() -> None:
    empty = draw(Scene("dotted", "green", ()))

    assert picture_metrics.object_colour(empty) == picture_metrics.object_shape(empty) == ""


@pytest.mark.parametrize("texture", ["plain", "striped", "dotted", "gradient"])
def test_a_background_is_the_same_with_another_object_on_it(texture: str) -> None:
    first = draw(Scene(texture, "blue", (Thing("fish", "yellow", "large", "left"),)))
    second = draw(Scene(texture, "blue", (Thing("house", "white"),)))
    other = draw(Scene(texture, "purple", (Thing("house", "white"),)))

    assert picture_metrics.same_background(first, second)
    assert not picture_metrics.same_background(first, other)


def test_landscapes_differ_below_the_horizon() -> None:
    meadow, sea = (draw(Scene(texture, "", (Thing("star", "red"),))) for texture in ("meadow", "sea"))

    assert not picture_metrics.same_background(meadow, sea)


def test_psnr_of_a_known_error() -> None:
    grey, lighter = (Image.new("RGB", (8, 8), (value,) * 3) for value in (100, 110))

    assert picture_metrics.psnr(grey, lighter) == pytest.approx(28.13, abs=0.01)
    assert picture_metrics.psnr(grey, grey) == float("inf")
