"""The error for latents that are not finite: which field it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.plan import IpAdapterPlan
from runtime.stages.denoiser.not_finite import not_finite
from tests.unit.runtime.plans import make_plan

ADAPTER = {"path": "adapter", "ip_adapter_image_url": "tensor:0"}
CONTROLNET = {"path": "network", "image_url": "tensor:0", "conditioning_scale": 1.5}
UNGUIDED = {"guidance_scale": 1.0}
OTHER = "use other weights in model_name"
START = "the latents are not finite in bfloat16: "


@pytest.mark.parametrize(
    ("scale", "fields", "expected"),
    [
        (None, UNGUIDED, f"{START}{OTHER}"),
        (None, {}, f"{START}lower guidance_scale (7.5), or {OTHER}"),
        (
            -1e9,
            {},
            f"loras[0].scale: {START}lower loras[0].scale (-1e+09), guidance_scale (7.5), or {OTHER}",
        ),
        (
            0.5,
            {"controlnets": [CONTROLNET]},
            f"{START}lower guidance_scale (7.5), controlnets[0].conditioning_scale (1.5), loras[0].scale (0.5), or "
            f"{OTHER}",
        ),
        (
            None,
            {"ip_adapter": [{**ADAPTER, "scale": 900}], **UNGUIDED},
            f"ip_adapter[0].scale: {START}lower ip_adapter[0].scale (900), or {OTHER}",
        ),
        (
            None,
            {"ip_adapter": [{**ADAPTER, "scale_json": {"down": 900}}], **UNGUIDED},
            f"ip_adapter[0].scale_json: {START}lower ip_adapter[0].scale_json (900), or {OTHER}",
        ),
    ],
)
def test_the_largest_factors_are_named(
    tiny: Path, sd15: Checkpoint, scale: float | None, fields: dict[str, Any], expected: str
) -> None:
    loras = {} if scale is None else {tiny / "loras/sd15/kohya.safetensors": scale}
    plan = make_plan(sd15, loras=loras, **fields)
    adapters = [
        IpAdapterPlan(projection=sd15.unet, images=(), scales=(0.0, 900.0), widths=(1, 1))
        for _ in plan.request.ip_adapter
    ]
    assert str(not_finite(plan.model_copy(update={"ip_adapters": tuple(adapters)}), "bfloat16")) == expected


def test_each_file_of_the_checkpoint_is_named(sd15: Checkpoint) -> None:
    unet = Component(**{**sd15.unet.model_dump(), "field": "unet_name"})
    plan = make_plan(sd15.model_copy(update={"unet": unet}), guidance_scale=1.0)
    assert str(not_finite(plan, "bfloat16")) == f"{START}{OTHER}, unet_name"
