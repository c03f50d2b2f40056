"""What the demo model makes of prompts, pictures and LoRAs, measured on the pictures: a request means what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from PIL import Image

from deploy.demo_model import measure
from deploy.demo_model.cases import Case, held_out_cases
from deploy.demo_model.style_measure import DEGREES, SHOWN
from deploy.demo_model.styles import STYLES
from lorikeet import Client

CASES = held_out_cases(20)
FEWER = CASES[:8]
AT_ONCE = 8
Paint = Callable[..., list[Image.Image]]
Report = Callable[[str, object], None]


@pytest.fixture(scope="module")
def paint(client: Client) -> Paint:
    """Paints cases with `noise_strength` and LoRAs, (name, scale) pairs; the same again costs nothing."""

    @cache
    def painted(cases: tuple[Case, ...], strength: float, loras: tuple[tuple[str, float], ...]) -> list[Image.Image]:
        def one(case: Case) -> Image.Image:
            result = client.image_to_image(
                model_name="scenes",
                prompt=case.prompt,
                image=case.picture,
                loras=[{"path": f"loras/{name}.safetensors", "scale": scale} for name, scale in loras],
                noise_strength=strength,
                num_inference_steps=12,
                guidance_scale=4.0,
                scheduler="DPM++ 2M Karras",
                seed=CASES.index(case),
            )
            return result.images[0]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, cases))

    def paint(cases: Sequence[Case], strength: float = 0.8, **loras: float) -> list[Image.Image]:
        return painted(tuple(cases), strength, tuple(loras.items()))

    return paint


def test_the_thing_has_the_colour_that_the_prompt_names(paint: Paint, record_property: Report) -> None:
    right = [measure.object_colour(picture) == case.colour for case, picture in zip(CASES, paint(CASES), strict=True)]
    record_property("right", sum(right))
    assert sum(right) >= 0.9 * len(CASES)


def test_the_background_keeps_its_colour(paint: Paint, record_property: Report) -> None:
    kept = [measure.same_background(picture, case.picture) for case, picture in zip(CASES, paint(CASES), strict=True)]
    record_property("kept", sum(kept))
    assert sum(kept) >= 0.8 * len(CASES)


@pytest.mark.parametrize("style", STYLES)
def test_half_a_style_lies_between(style: str, paint: Paint, record_property: Report) -> None:
    degree = {scale: mean_degree(paint(FEWER, **{style: scale}), style) for scale in (0.0, 0.5, 1.0)}
    record_property("degree", degree)
    assert degree[0.0] < degree[0.5] < degree[1.0]


def test_two_styles_at_once_both_show(paint: Paint, record_property: Report) -> None:
    painted = paint(FEWER, **dict.fromkeys(STYLES, 1.0))
    degree = {style: mean_degree(painted, style) for style in STYLES}
    record_property("degree", degree)
    assert all(degree[style] > SHOWN[style] for style in STYLES)


def mean_degree(pictures: Sequence[Image.Image], style: str) -> float:
    return sum(map(DEGREES[style], pictures)) / len(pictures)
