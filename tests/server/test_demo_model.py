"""What the demo model makes of prompts, pictures and LoRAs, measured on the pictures: a request means what it says.

A hundred held-out cases, each with a new seed; in bfloat16, as the demo runs where that is native."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from PIL import Image

from deploy.demo_model.evaluation import picture_metrics
from deploy.demo_model.evaluation.checkpoint import CLOSE, STRONG, WEAK
from deploy.demo_model.evaluation.edit_cases import EditCase, held_out_cases
from deploy.demo_model.evaluation.style_metrics import DEGREES, has_style
from deploy.demo_model.pipeline.image_generator import GUIDANCE
from deploy.demo_model.world.styles import STYLES
from lorikeet import Client

CASES = held_out_cases(100)
AT_ONCE = 8
Paint = Callable[..., list[Image.Image]]
Report = Callable[[str, object], None]


@pytest.fixture(scope="module")
def paint(in_bfloat16: Client) -> Paint:
    """Paints the cases with `noise_strength` and LoRAs, scales by name; the same again costs nothing."""

    @cache
    def painted(strength: float, loras: tuple[tuple[str, float], ...]) -> list[Image.Image]:
        def one(case: EditCase) -> Image.Image:
            result = in_bfloat16.image_to_image(
                model_name="scenes",
                prompt=case.prompt,
                image=case.picture,
                loras=[{"path": f"loras/{name}.safetensors", "scale": scale} for name, scale in loras],
                noise_strength=strength,
                num_inference_steps=10,
                guidance_scale=GUIDANCE,
                scheduler="DPM++ 2M Karras",
                seed=CASES.index(case),
            )
            return result.images[0]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, CASES))

    def paint(strength: float = STRONG, **loras: float) -> list[Image.Image]:
        return painted(strength, tuple(loras.items()))

    return paint


def count(found: list[bool], record_property: Report) -> int:
    """How many of a hundred; noted among the results."""
    record_property("of 100", sum(found))
    return sum(found)


def test_the_thing_has_the_colour_that_the_prompt_names(paint: Paint, record_property: Report) -> None:
    right = [
        picture_metrics.object_colour(picture) == case.colour for case, picture in zip(CASES, paint(), strict=True)
    ]
    assert count(right, record_property) >= 90


def test_the_thing_has_the_shape_that_the_prompt_names(paint: Paint, record_property: Report) -> None:
    right = [picture_metrics.object_shape(picture) == case.kind for case, picture in zip(CASES, paint(), strict=True)]
    assert count(right, record_property) >= 80


def test_the_background_keeps_its_colour(paint: Paint, record_property: Report) -> None:
    kept = [
        picture_metrics.same_background(picture, case.picture) for case, picture in zip(CASES, paint(), strict=True)
    ]
    assert count(kept, record_property) >= 80


def test_with_little_noise_the_picture_stays_close(paint: Paint, record_property: Report) -> None:
    close = [picture_metrics.psnr(now, case.picture) >= CLOSE for case, now in zip(CASES, paint(WEAK), strict=True)]
    assert count(close, record_property) >= 95


@pytest.mark.parametrize("style", STYLES)
def test_a_style_shows_at_scale_1_and_not_at_0(style: str, paint: Paint, record_property: Report) -> None:
    assert count([has_style(picture, style) for picture in paint(**{style: 1.0})], record_property) >= 90
    assert count([has_style(picture, style) for picture in paint()], record_property) <= 10


@pytest.mark.parametrize("style", STYLES)
def test_half_a_style_lies_between(style: str, paint: Paint, record_property: Report) -> None:
    scales: list[dict[str, float]] = [{}, {style: 0.5}, {style: 1.0}]
    none, half, whole = (sum(map(DEGREES[style], paint(**loras))) / len(CASES) for loras in scales)
    record_property("degree", (none, half, whole))
    assert none < half < whole


def test_two_styles_at_once_both_show(paint: Paint, record_property: Report) -> None:
    pictures = paint(**dict.fromkeys(STYLES, 1.0))
    for style in STYLES:
        assert count([has_style(picture, style) for picture in pictures], record_property) >= 90
