"""`prepare`: a field that another one leaves without effect is a warning; with its default value it is none."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.prepare_requests import ask, make_png

CONTROLNET = {"path": "controlnets/sd15", "image_url": "tensor:0"}
ADAPTER = {"path": "ip_adapters/sd15", "weight_name": "base.safetensors", "ip_adapter_image_url": "tensor:0"}
CUSTOM = {"method": "array", "array": [800, 400]}


def _warnings(stage: PrepareStage, **fields: Any) -> tuple[str, ...]:
    warnings: tuple[str, ...] = ask(stage, [make_png()], **fields).plan.warnings
    return warnings


@pytest.mark.parametrize(
    ("fields", "without", "warning"),
    [
        (
            {"image_url": "tensor:0", "image_size": "square_hd"},
            {"image_url": None},
            "image_size: the result has the size of image_url, 72x66, ignored",
        ),
        (
            {"image_url": "tensor:0", "image_size": "square_hd"},
            {"image_size": {"width": 72, "height": 66}},
            "image_size: the result has the size of image_url, 72x66, ignored",
        ),
        (
            {"noise_strength": 0.7},
            {"image_url": "tensor:0"},
            "noise_strength: the request has no image_url, ignored",
        ),
        (
            {"noise_strength": 0, "image_url": "tensor:0", "controlnets": [CONTROLNET]},
            {"controlnets": []},
            "controlnets: noise_strength is 0, so no step is run, ignored",
        ),
        (
            {"tile_stride_width": 64},
            {"image_size": {"width": 256, "height": 256}, "tile_width": 128},
            "tile_stride_width: no tile is smaller than the picture, ignored",
        ),
        (
            {
                "controlnets": [{**CONTROLNET, "start_percentage": 0.9, "end_percentage": 0.95}],
                "num_inference_steps": 4,
                "scheduler": "Euler",
            },
            {"num_inference_steps": 20},
            "controlnets[0]: it acts in none of the 4 steps, because none lies whole between start_percentage 0.9 and "
            "end_percentage 0.95",
        ),
        (
            {"timesteps": {"array": [800, 400]}},
            {"timesteps": {"array": []}},
            "timesteps.array: timesteps.method is 'default', ignored; 'array' uses it",
        ),
        (
            {"sigmas": {"array": [10, 1]}, "scheduler": "Euler"},
            {"sigmas": {"array": [10, 1], "method": "array"}},
            "sigmas.array: sigmas.method is 'default', ignored; 'array' uses it",
        ),
        (
            {"timesteps": CUSTOM, "num_inference_steps": 20, "scheduler": "Euler"},
            {"num_inference_steps": 2},
            "num_inference_steps: timesteps replaces the schedule, ignored",
        ),
        (
            {"sigmas": {"method": "array", "array": [10, 1]}, "num_inference_steps": 2, "scheduler": "Euler"},
            {"num_inference_steps": 1},
            "num_inference_steps: sigmas replaces the schedule, ignored",
        ),
        (
            {"negative_prompt": "rain", "guidance_scale": 1},
            {"guidance_scale": 1.5},
            "negative_prompt: guidance_scale is 1, ignored",
        ),
        (
            {"negative_prompt": "rain", "unet_name": "lcm"},
            {"unet_name": None},
            "negative_prompt: the UNet is distilled with guidance, ignored",
        ),
        (
            {"ip_adapter": [{**ADAPTER, "unconditional_noising_factor": 0.5}], "guidance_scale": 0},
            {"guidance_scale": 2},
            "ip_adapter[0].unconditional_noising_factor: guidance_scale is 0, ignored",
        ),
        (
            {"controlnet_guess_mode": True},
            {"controlnets": [CONTROLNET]},
            "controlnet_guess_mode: the request has no ControlNet, ignored",
        ),
        (
            {"controlnets": [{**CONTROLNET, "mask_threshold": 0.5}]},
            {"controlnets": [CONTROLNET]},
            "controlnets[0].mask_threshold: the ControlNet has no mask_url, ignored",
        ),
        (
            {"ip_adapter": [{**ADAPTER, "mask_threshold": 0.2}]},
            {"ip_adapter": [{**ADAPTER, "mask_threshold": 0.2, "ip_adapter_mask_url": "tensor:0"}]},
            "ip_adapter[0].mask_threshold: the adapter has no ip_adapter_mask_url, ignored",
        ),
        (
            {"ip_adapter": [{**ADAPTER, "scale": 0.2, "scale_json": {"down": 0.5}}]},
            {"ip_adapter": [{**ADAPTER, "scale": 1, "scale_json": {"down": 0.5}}]},
            "ip_adapter[0].scale: scale_json replaces it, ignored",
        ),
        (
            {"ip_adapter": [{**ADAPTER, "scale_json": {"down": [0], "up": {"block_1": 0}}}]},
            {"ip_adapter": [{**ADAPTER, "scale_json": {}}]},
            "ip_adapter[0].scale_json: all its scales are 0, so the adapter changes no layer",
        ),
        (
            {"ip_adapter": [{**ADAPTER, "image_projection_shortcut": False}]},
            {
                "ip_adapter": [
                    {
                        **ADAPTER,
                        "weight_name": "faceid_plus.safetensors",
                        "insight_face_model_path": "face_pack",
                        "image_projection_shortcut": False,
                    }
                ]
            },
            "ip_adapter[0].image_projection_shortcut: only FaceID Plus has one, ignored",
        ),
    ],
)
def test_a_field_without_effect_is_a_warning(
    stage: PrepareStage, fields: dict[str, Any], without: dict[str, Any], warning: str
) -> None:
    assert _warnings(stage, **fields) == (warning,)
    assert _warnings(stage, **(fields | without)) == ()


def test_an_empty_scale_json_leaves_the_scale(stage: PrepareStage) -> None:
    adapters = [{**ADAPTER, "scale_json": {}, "scale": 0.25}]
    plan = ask(stage, [make_png()], ip_adapter=adapters).plan
    assert set(plan.ip_adapters[0].scales) == {0.25}
    assert plan.warnings == ()
