"""What the demo model's ControlNet and IP-Adapter make of a request, measured on the pictures, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from deploy.demo_model.evaluation.adapters import outline_overlap
from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.evaluation.picture_metrics import object_colour, same_background
from deploy.demo_model.pipeline.image_generator import GUIDANCE
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.scene import draw
from lorikeet import Client

CASES = held_out_cases(60)
COUNTS = [12, pytest.param(len(CASES), marks=pytest.mark.verify)]
AT_ONCE = 8
Report = Callable[[str, object], None]


def paint(client: Client, number: int, prompt: str, **fields: Any) -> Image.Image:
    """A picture from noise."""
    common: dict[str, Any] = {
        "model_name": "scenes",
        "num_inference_steps": 16,
        "guidance_scale": GUIDANCE,
        "scheduler": "DPM++ 2M",
    }
    size = {"width": 128, "height": 128}
    common |= {"prompt": prompt, "seed": number, "scheduler": "DPM++ 2M", "image_size": size}
    return client.image_to_image(**common, **fields).images[0]


def paint_all(count: int, one: Callable[[int], Image.Image]) -> list[Image.Image]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("count", COUNTS)
def test_a_controlnet_gives_the_outline_of_its_picture(
    in_bfloat16: Client, count: int, record_property: Report
) -> None:
    wanted = [draw(case.after) for case in CASES[:count]]

    def overlap(scale: float) -> float:
        def one(number: int) -> Image.Image:
            controlnet = {"path": "controlnet_edges", "image_url": edges(wanted[number]), "conditioning_scale": scale}
            return paint(in_bfloat16, number, CASES[number].prompt, controlnets=[controlnet])

        return sum(map(outline_overlap, paint_all(count, one), wanted)) / count

    without, with_it = overlap(0.0), overlap(1.0)
    record_property("overlap", (without, with_it))
    assert with_it > 0.6
    assert with_it > without + 0.2


@pytest.mark.parametrize("count", COUNTS)
def test_an_ip_adapter_gives_the_colours_of_its_picture(
    in_bfloat16: Client, count: int, record_property: Report
) -> None:
    shown = [draw(case.after) for case in CASES[:count]]

    def shares(scale: float) -> tuple[float, float]:
        def one(number: int) -> Image.Image:
            adapter = {"path": "ip_adapter", "weight_name": "ip_adapter.safetensors", "scale": scale}
            return paint(in_bfloat16, number, "", ip_adapter=[adapter | {"ip_adapter_image_url": shown[number]}])

        pictures = paint_all(count, one)
        colours = [object_colour(now) == case.colour for now, case in zip(pictures, CASES, strict=False)]
        backgrounds = [same_background(*pair) for pair in zip(pictures, shown, strict=True)]
        return sum(colours) / count, sum(backgrounds) / count

    (_, other), (colour, background) = shares(0.01), shares(1.0)
    record_property("colour, background, background with a scale of 0.01", (colour, background, other))
    assert colour >= 0.4
    assert background >= other + 0.3
