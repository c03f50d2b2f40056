"""The demo model's LCM-LoRA (arXiv 2311.05556), with convolutions: pictures in four steps without guidance."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from PIL import Image

from deploy.demo_model.evaluation.checkpoint import STRONG
from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.evaluation.picture_metrics import object_colour, object_shape, same_background
from deploy.demo_model.pipeline.image_generator import LCM_STEPS
from lorikeet import Client

CASES = held_out_cases(100)
COUNTS = [20, pytest.param(len(CASES), marks=pytest.mark.verify)]
AT_ONCE = 8
Report = Callable[[str, object], None]


@pytest.fixture(scope="module", params=["torch", pytest.param("openvino", marks=pytest.mark.verify)])
def demo(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue("in_bfloat16" if request.param == "torch" else "demo_on_openvino")
    return found


def edit(client: Client, steps: int, scale: float, number: int) -> Image.Image:
    """The picture of a case."""
    result = client.image_to_image(
        model_name="scenes",
        prompt=CASES[number].prompt,
        image=CASES[number].picture,
        loras=[{"path": "loras/lcm.safetensors", "scale": scale}],
        noise_strength=STRONG,
        num_inference_steps=steps,
        guidance_scale=1.0,
        scheduler="LCM",
        seed=number,
    )
    return result.images[0]


def measure(client: Client, steps: int, scale: float, count: int) -> dict[str, float]:
    """The shares of the first `count` cases in which colour, shape and background are right."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pictures = list(pool.map(partial(edit, client, steps, scale), range(count)))
    pairs = list(zip(pictures, CASES, strict=False))
    right = {
        "colour": [object_colour(picture) == case.colour for picture, case in pairs],
        "shape": [object_shape(picture) == case.kind for picture, case in pairs],
        "background": [same_background(picture, case.picture) for picture, case in pairs],
    }
    return {name: sum(found) / count for name, found in right.items()}


@pytest.mark.parametrize("count", COUNTS)
def test_four_steps_make_what_the_prompt_names(demo: Client, count: int, record_property: Report) -> None:
    found = measure(demo, LCM_STEPS, 1.0, count)
    record_property("shares", found)
    assert found["colour"] >= 0.9
    assert found["shape"] >= 0.75
    assert found["background"] >= 0.8


@pytest.mark.parametrize("count", COUNTS)
def test_one_step_makes_the_shape_with_the_lora_only(demo: Client, count: int, record_property: Report) -> None:
    with_lora, without = (measure(demo, 1, scale, count)["shape"] for scale in (1.0, 0.0))
    record_property("shares", (with_lora, without))
    assert with_lora >= without + 0.15
