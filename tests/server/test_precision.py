"""The same requests in bfloat16 and in float32: the pictures are nearly the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.evaluation.picture_metrics import psnr
from lorikeet import Client
from lorikeet.schema import SchedulerName

STEPS = 30
NEAR = 30.0  # dB
CASES = held_out_cases(4)
# The others draw noise in their steps; TCD does so only where eta is above 0.
WITHOUT_NOISE = (
    SchedulerName.DPMPP_2M,
    SchedulerName.DPMPP_2M_KARRAS,
    SchedulerName.EULER,
    SchedulerName.EULER_TRAILING,
    SchedulerName.DDIM,
    SchedulerName.TCD,
)


@pytest.mark.parametrize("cases", [1, pytest.param(len(CASES), marks=pytest.mark.verify)])
@pytest.mark.parametrize("scheduler", WITHOUT_NOISE)
def test_bfloat16_paints_nearly_what_float32_does(
    scheduler: SchedulerName,
    cases: int,
    client: Client,
    in_bfloat16: Client,
    record_property: Callable[[str, object], None],
) -> None:
    apart = []
    for index, case in enumerate(CASES[:cases]):
        request: dict[str, Any] = {
            "model_name": "scenes",
            "prompt": case.prompt,
            "image": case.picture,
            "scheduler": scheduler.value,
            "num_inference_steps": STEPS,
            "guidance_scale": 3.0,
            "noise_strength": 0.8,
            "seed": index,
        }
        exact, quick = client.image_to_image(**request), in_bfloat16.image_to_image(**request)
        assert tuple(result.response.receipt.engine.precision for result in (exact, quick)) == ("float32", "bfloat16")
        apart.append(psnr(exact.images[0], quick.images[0]))
    record_property("PSNR in dB", [round(value, 1) for value in apart])
    assert min(apart) >= NEAR
