from random import Random

import pytest
from PIL import Image

from deploy.demo_model.evaluation.style_metrics import DEGREES, has_style
from deploy.demo_model.world.random_scenes import random_scene
from deploy.demo_model.world.scene import draw
from deploy.demo_model.world.styles import STYLES, halftone, sepia


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    random = Random(7)
    return [draw(random_scene(random)) for _ in range(60)]


@pytest.mark.parametrize("style", STYLES)
def test_a_style_shows_where_it_is_and_only_there(style: str, drawn: list[Image.Image]) -> None:
    assert all(has_style(STYLES[style](picture), style) for picture in drawn)
    assert not any(has_style(picture, style) for picture in drawn)


@pytest.mark.parametrize(("style", "other"), [("sepia", "halftone"), ("halftone", "sepia")])
def test_a_style_is_not_taken_for_the_other(style: str, other: str, drawn: list[Image.Image]) -> None:
    assert not any(has_style(STYLES[other](picture), style) for picture in drawn)


@pytest.mark.parametrize("style", STYLES)
def test_both_styles_at_once_show_both(style: str, drawn: list[Image.Image]) -> None:
    assert all(has_style(halftone(sepia(picture)), style) for picture in drawn)


@pytest.mark.parametrize("style", STYLES)
def test_half_a_style_is_between(style: str, drawn: list[Image.Image]) -> None:
    for picture in drawn:
        styled = STYLES[style](picture)
        half = Image.blend(picture, styled, 0.5)
        assert DEGREES[style](picture) < DEGREES[style](half) < DEGREES[style](styled)
