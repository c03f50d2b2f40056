"""The oracle answers to every field, and leaves nothing behind."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.reference import ReferenceLora, ReferenceRequest, ReferenceResult, reference, relative_error
from tests.reference.pipelines import pipeline
from tests.reference.schedulers import SCHEDULERS
from tests.tiny import tiny_folder

MODELS = ("sd15", "sdxl")
NAMINGS = ("peft", "kohya")
PARTS = (
    *((model, part) for model in MODELS for part in ("unet", "text_encoder")),
    ("sdxl", "text_encoder_2"),
)
HEADER_ALPHAS = (("sd15", "peft", 6), ("sdxl", "peft", 4), ("sd15", "kohya", 0), ("sdxl", "kohya", 0))
CLEARLY = 1e-2
STEPS = 4


def _picture(phase: float) -> Image.Image:
    y, x = np.mgrid[0:64, 0:64] / 64
    pixels = np.stack([np.sin(6 * x + phase), np.cos(5 * y - phase), x * y * 2 - 1], axis=-1)
    return Image.fromarray(np.uint8(127.5 + 127.5 * pixels))


def _request(model: str) -> ReferenceRequest:
    prompt = "a photo of a red castle, detailed"
    return ReferenceRequest(tiny_folder() / model, prompt, image=_picture(0), num_inference_steps=STEPS)


def _lora(model: str, naming: str, scale: float = 1.0) -> ReferenceLora:
    return ReferenceLora(tiny_folder() / "loras" / model / f"{naming}.safetensors", scale)


@cache
def _plain(model: str) -> ReferenceResult:
    return reference(_request(model))


def _moved(model: str, **changes: Any) -> float:
    return relative_error(reference(replace(_request(model), **changes)).latents, _plain(model).latents)


CHANGES: dict[str, Any] = {
    "prompt": "a blue dog at night",
    "negative_prompt": "blurry, ugly",
    "image": _picture(1),
    "noise_strength": 0.6,
    "seed": 1,
    "num_inference_steps": STEPS + 1,
    "guidance_scale": 6.5,
    "scheduler": "DPM++ 2M Karras",
    "clip_skip": 1,
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("field", CHANGES)
def test_every_field_moves_the_latents(model: str, field: str) -> None:
    assert _moved(model, **{field: CHANGES[field]}) > CLEARLY


@pytest.mark.parametrize(
    ("scheduler", "change"),
    [
        ("Euler", {"timesteps": (900, 600, 300, 100)}),
        ("Euler", {"sigmas": (14.0, 5.0, 1.0, 0.3, 0.0)}),
        ("Euler", {"prediction_type": "v_prediction"}),
        ("Euler", {"rescale_betas_snr_zero": True}),
        ("DDIM", {"eta": 0.5}),
    ],
)
def test_every_field_of_the_schedule_moves_the_latents(scheduler: str, change: dict[str, Any]) -> None:
    before = replace(_request("sd15"), scheduler=scheduler)
    assert relative_error(reference(replace(before, **change)).latents, reference(before).latents) > CLEARLY


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_a_lora_moves_the_latents_by_its_scale_and_is_gone_afterwards(model: str, naming: str) -> None:
    full = _moved(model, loras=(_lora(model, naming),))
    half = _moved(model, loras=(_lora(model, naming, 0.5),))
    assert full > CLEARLY
    assert half > CLEARLY
    assert abs(full - half) > CLEARLY
    assert _moved(model) == 0


@pytest.mark.parametrize("model", MODELS)
def test_two_loras_are_more_than_either(model: str) -> None:
    first, second = (_lora(model, naming) for naming in NAMINGS)
    both = reference(replace(_request(model), loras=(first, second))).latents
    for one in (first, second):
        assert relative_error(both, reference(replace(_request(model), loras=(one,))).latents) > CLEARLY


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_each_part_of_a_lora_moves_the_latents(model: str, part: str, tmp_path: Path) -> None:
    tensors = load_file(_lora(model, "peft").path)
    path = tmp_path / f"{part}.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}, path)
    assert _moved(model, loras=(ReferenceLora(path),)) > CLEARLY


@pytest.mark.parametrize(("model", "naming", "header_alpha"), HEADER_ALPHAS)
def test_diffusers_applies_every_pair_and_alpha(model: str, naming: str, header_alpha: int) -> None:
    """Also with a second LoRA loaded after it, when transformers warns, wrongly, that the first is lost."""
    tensors = load_file(_lora(model, naming).path)
    expected = []
    for name, down in tensors.items():
        layer, found, _ = name.partition(".lora_A.") if naming == "peft" else name.partition(".lora_down.")
        if found:
            up = tensors[name.replace("lora_A", "lora_B").replace("lora_down", "lora_up")]
            alpha = float(tensors.get(f"{layer}.alpha", header_alpha))
            expected.append(float((up.flatten(1) @ down.flatten(1)).norm()) * alpha / down.shape[0])

    loras = (_lora(model, naming),) * 2
    with torch.no_grad(), pipeline(tiny_folder() / model, loras, image_to_image=True) as pipe:
        networks = [module for module in pipe.components.values() if isinstance(module, torch.nn.Module)]
        layers: list[Any] = [layer for network in networks for layer in network.modules()]
        applied = [float(layer.get_delta_weight("lora_0").norm()) for layer in layers if hasattr(layer, "lora_A")]
    assert sorted(applied) == pytest.approx(sorted(expected), rel=1e-5)


@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS])
def test_every_scheduler_runs(scheduler: str | None) -> None:
    result = reference(replace(_request("sd15"), scheduler=scheduler, num_images=2))
    assert result.latents.shape == (2, 4, 8, 8)
    assert np.array_equal(result.step_latents[-1], result.latents)
    assert len(result.images) == 2
    assert 0.1 < result.latents.std() < 30


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("image", [None, _picture(0)])
def test_thirty_steps_stay_in_bounds(model: str, image: Image.Image | None) -> None:
    result = reference(replace(_request(model), image=image, width=64, height=64, num_inference_steps=30))
    deviations = result.step_latents.std(axis=(1, 2, 3, 4))
    assert np.isfinite(result.step_latents).all()
    assert deviations.min() > 0.1
    assert deviations.max() < 30
    pixels = np.asarray(result.images[0])
    assert ((pixels == 0) | (pixels == 255)).mean() < 0.05


@pytest.mark.parametrize("model", MODELS)
def test_the_posterior_is_worth_sampling(model: str) -> None:
    with torch.no_grad(), pipeline(tiny_folder() / model, (), image_to_image=True) as pipe:
        posterior = pipe.vae.encode(pipe.image_processor.preprocess(_picture(0))).latent_dist
        scale = pipe.vae.config.scaling_factor
    assert 0.3 < scale * posterior.mean.std() < 3
    assert 0.05 < scale * posterior.std.mean() < 0.5


def test_relative_error_is_in_deviations_of_what_is_expected() -> None:
    expected = np.array([-1.0, 1.0, -1.0, 1.0])
    assert relative_error(expected + np.array([0, 0, 0.5, 0]), expected) == 0.5
    with pytest.raises(ValueError, match="shapes differ"):
        relative_error(expected[:2], expected)


def test_what_diffusers_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        replace(_request("sd15"), image=Image.new("RGB", (60, 64)))
    with pytest.raises(ValueError, match="no steps"):
        replace(_request("sd15"), noise_strength=0.0)
