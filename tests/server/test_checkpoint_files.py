"""Checkpoints as people have them: saved by transformers 5, merged, distilled, incomplete, damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from lorikeet import Client, InvalidRequest
from tests.reference import ReferenceRequest, reference, relative_error
from tests.server.parity import TOLERANCE, Case, Report, submit
from tests.tiny.original import write_original, write_sidecar
from tests.tiny.unets import SSD, write_unet

Tensors = dict[str, torch.Tensor]
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
TWO = {"text_encoder": CLIP_XL.rstrip("."), "text_encoder_2": OPEN_CLIP_XL.rstrip(".")}
WEIGHTS = "diffusion_pytorch_model.safetensors"
Fields = dict[str, Any]


@pytest.fixture(scope="module")
def models(tiny: Path, local_files: Path) -> Path:
    """The tiny checkpoints, where tests may write."""
    return Path(shutil.copytree(tiny, local_files / "models"))


def _copy(models: Path, name: str, kind: str) -> Path:
    return Path(shutil.copytree(models / kind, models / name))


def _write(path: Path, content: bytes | dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def _change_json(path: Path, **values: Any) -> None:
    _write(path, json.loads(path.read_text()) | values)


def _single(models: Path, name: str, kind: str, change: Callable[[Tensors], Tensors]) -> Path:
    """The single file of this kind, with other tensors."""
    path = models / f"single/{name}.safetensors"
    tensors = change(load_file(models / f"single/{kind}.safetensors"))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    shutil.copyfile(models / f"single/{kind}.config.json", path.with_suffix(".config.json"))
    return path


@dataclass(frozen=True)
class Form:
    """A checkpoint to serve, the folder that diffusers reads instead, and parts of the expected warnings, in order."""

    served: Path
    equal: Path
    warnings: tuple[str, ...] = ()


def _saved_by_transformers_5(models: Path) -> Form:
    """By today's diffusers, with surplus tensors in its UNet and its text encoder."""
    folder = models / "saved"
    DiffusionPipeline.from_pretrained(models / "sdxl", local_files_only=True).save_pretrained(folder)
    assert {path.name for path in (folder / "tokenizer_2").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    for place in (f"unet/{WEIGHTS}", "text_encoder/model.safetensors"):
        save_file(load_file(folder / place) | {"zz_owner": torch.zeros(1)}, folder / place)
    said = "ignored 1 tensor, which no network of Stable Diffusion has: zz_owner"
    return Form(folder, models / "sdxl", (f"model_name: unet: {said}", f"model_name: text_encoder: {said}"))


def _merged(models: Path) -> Form:
    """Two text encoders, a moving average, surplus tensors everywhere, and the VAE's attention under later names."""

    def change(all_: Tensors) -> Tensors:
        weights = {key: tensor for key, tensor in all_.items() if tensor.is_floating_point()}
        text = f"{CLIP}text_model."
        short = {key.replace(text, CLIP): tensor / 2 for key, tensor in weights.items() if key.startswith(text)}
        average = {f"model_ema.{key.replace('.', '')}": tensor / 2 for key, tensor in weights.items()}
        surplus = {f"{root}zz_owner": torch.zeros(1) for root in ("", UNET, VAE, CLIP)}
        surplus["embedding_manager.embedder.x"] = torch.zeros(2)
        positions = {f"{text}embeddings.position_ids": torch.arange(77)[None].half()}
        return {_later(key): tensor for key, tensor in all_.items()} | short | average | surplus | positions

    expected = ("which repeat others under a second name", "a moving average", "ignored 6 tensors, which no network")
    return Form(_single(models, "merged", "sd15", change), models / "sd15", expected)


def _later(key: str) -> str:
    for old, new in {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}.items():
        key = key.replace(f".mid.attn_1.{old}.", f".mid.attn_1.{new}.")
    return key


def _saved_by_comfyui(models: Path) -> Form:
    more = {
        f"{OPEN_CLIP_XL}transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "denoiser.sigmas": torch.zeros(1000),
        f"{CLIP_XL}text_projection.weight": torch.zeros(32, 32),
        "conditioner.embedders.0.logit_scale": torch.zeros(()),
    }
    served = _single(models, "comfyui", "sdxl", lambda all_: all_ | more)
    return Form(served, models / "sdxl", ("ignored 3 tensors, which no network",))


def _distilled(models: Path) -> Form:
    folder = _copy(models, "ssd", "sdxl")
    shutil.rmtree(folder / "unet")
    write_unet(folder / "unet", 71, SSD)
    served = models / "single/ssd.safetensors"
    write_original(served, folder, TWO)
    write_sidecar(served, folder, ("tokenizer", "tokenizer_2"))
    return Form(served, folder)


def _of_two_scheduler_classes(models: Path) -> Form:
    folder = _copy(models, "two-classes", "sd15")
    _change_json(folder / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    return Form(folder, folder)


@pytest.mark.parametrize(
    "form", [_saved_by_transformers_5, _merged, _saved_by_comfyui, _distilled, _of_two_scheduler_classes]
)
def test_an_unusual_checkpoint_gives_diffusers_latents(
    client: Client, models: Path, form: Callable[[Path], Form], record_property: Report
) -> None:
    made = form(models)
    request = ReferenceRequest(
        made.equal, "a red fish", "a boat", seed=7, num_inference_steps=3, width=64, height=96, guidance_scale=6.0
    )
    result = submit(client, Case(request, served={"model_name": str(made.served)})).result()
    assert result.latents is not None
    error = relative_error(result.latents, reference(request).latents)
    record_property("relative_error", error)
    assert error < TOLERANCE
    warnings = result.response.warnings
    assert len(warnings) == len(made.warnings)
    assert all(part in warning for part, warning in zip(made.warnings, warnings, strict=True))


def _with_scheduler(folder: Path, **config: Any) -> None:
    _write(folder / "scheduler/scheduler_config.json", config)


def _renamed(folder: Path, suffix: str) -> None:
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", suffix)))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3438167540\n"
EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
MEAN = [-1.6574, 1.886, -1.383, 2.5155]
REFUSED: dict[str, tuple[Callable[[Path], object], Fields, str]] = {
    "EDM": (lambda folder: _with_scheduler(folder, **EDM), {}, "models that are trained on the EDM noise schedule"),
    "EDM, replaced": (
        lambda folder: _with_scheduler(folder, **EDM),
        {"scheduler": "Euler"},
        "models that are trained on the EDM noise schedule",
    ),
    "flow matching, replaced": (
        lambda folder: _with_scheduler(folder, **FLOW),
        {"scheduler": "DDIM"},
        "models that are trained by flow matching",
    ),
    "normalized latents": (
        lambda folder: _change_json(folder / "vae/config.json", latents_mean=MEAN),
        {"scheduler": "Euler"},
        "its vae normalizes its latents (latents_mean in its configuration)",
    ),
    "only a variant": (
        lambda folder: _renamed(folder, ".fp16.safetensors"),
        {},
        f"its file unet/{WEIGHTS} is missing: set variant to 'fp16', which the folder has",
    ),
    "only pickles": (
        lambda folder: _renamed(folder, ".bin"),
        {},
        f"its file unet/{WEIGHTS} is missing: the folder has diffusion_pytorch_model.bin, pickles",
    ),
    "a git-LFS pointer": (
        lambda folder: _write(folder / "unet" / WEIGHTS, POINTER),
        {},
        f"unet/{WEIGHTS}: not a readable .safetensors file",
    ),
    "a web page": (
        lambda folder: _write(folder / "vae" / WEIGHTS, b"<!DOCTYPE html><html></html>"),
        {},
        f"vae/{WEIGHTS}: not a readable .safetensors file",
    ),
    "a cut file": (
        lambda folder: _write(
            folder / "text_encoder/model.safetensors", (folder / "text_encoder/model.safetensors").read_bytes()[:-1]
        ),
        {},
        "text_encoder/model.safetensors: not a readable .safetensors file",
    ),
    "a tokenizer of another kind": (
        lambda folder: _write(folder / "tokenizer/tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}),
        {},
        "tokenizer/tokenizer.json is not CLIP's tokenizer: expected a model of type BPE",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_says_what_to_do(client: Client, models: Path, name: str) -> None:
    change, fields, reason = REFUSED[name]
    folder = _copy(models, f"refused-{list(REFUSED).index(name)}", "sd15")
    change(folder)
    with pytest.raises(InvalidRequest) as caught:
        client.image_to_image(model_name=str(folder), prompt="a fish", num_inference_steps=1, **fields)
    assert str(caught.value).startswith("model_name: ")
    assert reason in str(caught.value)


def test_a_lost_middle_is_refused_and_not_taken_for_a_distillation(client: Client, models: Path) -> None:
    def change(all_: Tensors) -> Tensors:
        return {key: tensor for key, tensor in all_.items() if not key.startswith(f"{UNET}middle_block.1.")}

    path = _single(models, "lost", "sd15", change)
    with pytest.raises(InvalidRequest, match=r"^model_name: its unet is incomplete: mid_block\.attentions\.0"):
        client.image_to_image(model_name=str(path), prompt="a fish", num_inference_steps=1)


@pytest.mark.parametrize(
    ("model", "asked", "own"), [("sd2", "epsilon", "v_prediction"), ("sd15", "v_prediction", "epsilon")]
)
def test_another_prediction_type_is_a_warning(client: Client, model: str, asked: str, own: str) -> None:
    result = client.image_to_image(
        model_name=model,
        prompt="a fish",
        num_inference_steps=1,
        prediction_type=asked,
        image_size={"width": 64, "height": 64},
    )
    (warning,) = result.response.warnings
    assert warning.startswith(f"prediction_type: {asked!r} replaced the checkpoint's own {own!r}; ")
