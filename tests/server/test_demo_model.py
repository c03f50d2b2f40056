"""What the demo model makes of prompts, pictures, LoRAs and its embedding, measured on the pictures: a request means
what it says.

Held-out cases, each with a new seed: `make test` takes 15, and one style at half its scale; `make verify` takes 100.
In bfloat16, as the demo runs where that is native.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import pytest
from PIL import Image

from deploy.demo_model.evaluation import picture_metrics
from deploy.demo_model.evaluation.checkpoint import CLOSE, STRONG, WEAK
from deploy.demo_model.evaluation.edit_cases import EditCase, held_out_cases
from deploy.demo_model.evaluation.style_metrics import DEGREES, has_style
from deploy.demo_model.pipeline.image_generator import GUIDANCE
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS
from deploy.demo_model.world.styles import STYLES
from lorikeet import Client

CASES = held_out_cases(100)
COUNTS = [15, pytest.param(len(CASES), marks=pytest.mark.verify)]
AT_ONCE = 8
FIRST_STYLE, *OTHER_STYLES = STYLES
Paint = Callable[..., list[Image.Image]]
Report = Callable[[str, object], None]


@pytest.fixture(scope="module", params=COUNTS)
def cases(request: pytest.FixtureRequest) -> list[EditCase]:
    return CASES[: request.param]


@pytest.fixture(scope="module")
def paint_one(in_bfloat16: Client) -> Callable[..., Image.Image]:
    """Paints the case of a number with `noise_strength` and LoRAs, scales by name; the same again costs nothing."""

    @cache
    def painted(number: int, strength: float, loras: tuple[tuple[str, float], ...]) -> Image.Image:
        result = in_bfloat16.image_to_image(
            model_name="scenes",
            prompt=CASES[number].prompt,
            image=CASES[number].picture,
            loras=[{"path": f"loras/{name}.safetensors", "scale": scale} for name, scale in loras],
            noise_strength=strength,
            num_inference_steps=10,
            guidance_scale=GUIDANCE,
            scheduler="DPM++ 2M Karras",
            seed=number,
        )
        return result.images[0]

    return painted


@pytest.fixture
def paint(paint_one: Callable[..., Image.Image], cases: list[EditCase]) -> Paint:
    """Paints all cases."""

    def paint(strength: float = STRONG, **loras: float) -> list[Image.Image]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda number: paint_one(number, strength, tuple(loras.items())), range(len(cases))))

    return paint


def share(found: list[bool], record_property: Report) -> float:
    """The part of the cases of which it is so; noted among the results."""
    record_property("share", sum(found) / len(found))
    return sum(found) / len(found)


def test_the_thing_has_the_colour_that_the_prompt_names(
    paint: Paint, cases: list[EditCase], record_property: Report
) -> None:
    right = [
        picture_metrics.object_colour(picture) == case.colour for case, picture in zip(cases, paint(), strict=True)
    ]
    assert share(right, record_property) >= 0.9


def test_the_thing_has_the_shape_that_the_prompt_names(
    paint: Paint, cases: list[EditCase], record_property: Report
) -> None:
    right = [picture_metrics.object_shape(picture) == case.kind for case, picture in zip(cases, paint(), strict=True)]
    assert share(right, record_property) >= 0.8


def test_the_background_keeps_its_colour(paint: Paint, cases: list[EditCase], record_property: Report) -> None:
    kept = [
        picture_metrics.same_background(picture, case.picture) for case, picture in zip(cases, paint(), strict=True)
    ]
    assert share(kept, record_property) >= 0.8


def test_with_little_noise_the_picture_stays_close(
    paint: Paint, cases: list[EditCase], record_property: Report
) -> None:
    close = [picture_metrics.psnr(now, case.picture) >= CLOSE for case, now in zip(cases, paint(WEAK), strict=True)]
    assert share(close, record_property) >= 0.95


@pytest.mark.parametrize("style", STYLES)
def test_a_style_shows_at_scale_1_and_not_at_0(style: str, paint: Paint, record_property: Report) -> None:
    assert share([has_style(picture, style) for picture in paint(**{style: 1.0})], record_property) >= 0.9
    assert share([has_style(picture, style) for picture in paint()], record_property) <= 0.1


@pytest.mark.parametrize(
    "style", [FIRST_STYLE, *(pytest.param(style, marks=pytest.mark.verify) for style in OTHER_STYLES)]
)
def test_half_a_style_lies_between(style: str, paint: Paint, cases: list[EditCase], record_property: Report) -> None:
    scales: list[dict[str, float]] = [{}, {style: 0.5}, {style: 1.0}]
    none, half, whole = (sum(map(DEGREES[style], paint(**loras))) / len(cases) for loras in scales)
    record_property("degree", (none, half, whole))
    assert none < half < whole


def test_two_styles_at_once_both_show(paint: Paint, record_property: Report) -> None:
    pictures = paint(**dict.fromkeys(STYLES, 1.0))
    for style in STYLES:
        assert share([has_style(picture, style) for picture in pictures], record_property) >= 0.9


def test_the_embedding_s_token_stands_for_its_thing(
    in_bfloat16: Client, cases: list[EditCase], record_property: Report
) -> None:
    spec, random = EMBEDDING_SPECS["keepsake"], Random(0)
    captions = [spec.caption(scene, random, "<s0>") for scene in islice(spec.scenes(random), len(cases))]

    def shows(embeddings: list[dict[str, Any]]) -> list[bool]:
        def paint(number: int) -> Image.Image:
            result = in_bfloat16.image_to_image(
                model_name="scenes",
                prompt=captions[number],
                embeddings=embeddings,
                num_inference_steps=10,
                guidance_scale=GUIDANCE,
                scheduler="DPM++ 2M Karras",
                seed=number,
            )
            return result.images[0]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            pictures = list(pool.map(paint, range(len(captions))))
        wanted = spec.kind, spec.colour
        return [(picture_metrics.object_shape(one), picture_metrics.object_colour(one)) == wanted for one in pictures]

    embedding: dict[str, Any] = {"path": f"embeddings/{spec.name}.safetensors", "tokens": ["<s0>"]}
    assert share(shows([embedding]), record_property) >= 0.8
    assert share(shows([]), record_property) <= 0.2
