"""LoRA: what a file does to the weights is what diffusers does with it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.names import canonical_name
from runtime.lora.file import read_lora
from runtime.lora.load import load_factors
from runtime.weights import WeightSet, base_tensors
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import Tensors
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def _fused(checkpoint: Path, lora: Path, scale: float) -> dict[str, Tensors]:
    """component -> its weights, canonically named, after diffusers loaded the file and fused it."""
    pipe = PIPELINES[checkpoint.name].from_pretrained(checkpoint)
    pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    pipe.fuse_lora(lora_scale=scale)
    pipe.unload_lora_weights()
    names = ("unet", "text_encoder", "text_encoder_2")
    parts = {name: pipe.components[name] for name in names if pipe.components.get(name) is not None}
    return {name: _canonical(name, module.state_dict()) for name, module in parts.items()}


def _canonical(component: str, tensors: Tensors) -> Tensors:
    return {key: tensor for name, tensor in tensors.items() if (key := canonical_name(component, name))}


def _merged(component: Component, lora: Path, scale: float, parts: tuple[Component, ...]) -> Tensors:
    layers = [layer for layer in read_lora(lora, parts) if layer.target.component == component.name]
    changes = {name: [factor] for name, factor in load_factors(lora, layers, scale).items()}
    weights, base = WeightSet(component, low_rank=changes), dict(base_tensors(component))
    return base | {name: weights.merged(name, base[name]) for name in weights.changed}


@cache
def _base(folder: Path) -> Checkpoint:
    return read_checkpoint(folder)


def _assert_the_same(checkpoint: Path, lora: Path, scale: float) -> None:
    expected = _fused(checkpoint, lora, scale)
    parts = _base(checkpoint).adaptable
    assert {part.name for part in parts} == expected.keys()
    for part in parts:
        found = _merged(part, lora, scale, parts)
        assert found.keys() == expected[part.name].keys()
        for name, tensor in found.items():
            error = (tensor - expected[part.name][name]).norm() / expected[part.name][name].norm()
            assert error < 1e-6, f"{part.name}.{name} differs by {error:.1e}"


@pytest.mark.parametrize(
    ("model", "style", "scale"),
    [
        ("sd15", "peft", 1.0),
        ("sd15", "peft", 2.5),
        ("sd15", "kohya", -0.7),
        ("sdxl", "peft", -0.7),
        ("sdxl", "kohya", 1.0),
        ("sdxl", "kohya", 2.5),
    ],
)
def test_merged_weights_are_those_of_diffusers(tiny: Path, model: str, style: str, scale: float) -> None:
    _assert_the_same(tiny / model, tiny / "loras" / model / f"{style}.safetensors", scale)


def test_a_lora_of_scale_0_changes_nothing(tiny: Path, sd15: Checkpoint) -> None:
    lora = tiny / "loras/sd15/kohya.safetensors"
    for part in sd15.adaptable:
        base = dict(base_tensors(part))
        assert all(torch.equal(tensor, base[name]) for name, tensor in _merged(part, lora, 0.0, sd15.adaptable).items())


def test_the_tiny_loras_change_every_kind_of_layer(tiny: Path, sd15: Checkpoint) -> None:
    """Or the parity above would say little."""
    layers = read_lora(tiny / "loras/sd15/kohya.safetensors", sd15.adaptable)
    shapes = {part.name: part.shapes for part in sd15.adaptable}
    kinds = {shapes[layer.target.component][layer.target.parameter][2:] for layer in layers}
    assert kinds == {(), (1, 1), (3, 3)}
    assert {layer.target.component for layer in layers} == {"unet", "text_encoder"}


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters")
@pytest.mark.parametrize(
    "config",
    [
        {"unet.lora_alpha": 3},
        {"unet.lora_alpha": 3, "unet.use_rslora": True},
        {"unet.lora_alpha": 3, "unet.alpha_pattern": {TO_Q: 5}},
        None,
    ],
)
def test_the_metadata_scale_as_in_diffusers(tiny: Path, tmp_path: Path, config: dict[str, Any] | None) -> None:
    tensors = lora_files.pair(f"unet.{TO_Q}", 16, 16) | lora_files.pair(f"unet.{TO_Q[:-1]}k", 16, 16, seed=1)
    complete = {"unet.r": 2, "unet.target_modules": ["to_q", "to_k"], "unet.peft_type": "LORA"} | (config or {})
    lora = lora_files.write(tmp_path / "lora.safetensors", tensors, json.dumps(complete) if config else None)
    _assert_the_same(tiny / "sd15", lora, 1.5)


def test_diffusers_first_loras_are_read_as_diffusers_reads_them(tiny: Path, tmp_path: Path) -> None:
    attention = "unet." + TO_Q.removesuffix(".to_q")
    tensors = {}
    for seed, layer in enumerate(("to_q", "to_k", "to_v", "to_out")):
        made = lora_files.pair("x", 16, 16, seed=seed)
        for role, factor in (("down", "x.lora_A.weight"), ("up", "x.lora_B.weight")):
            tensors[f"{attention}.processor.{layer}_lora.{role}.weight"] = made[factor]
    _assert_the_same(tiny / "sd15", lora_files.write(tmp_path / "lora.safetensors", tensors), 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_factors_are_multiplied_in_float32(
    tiny: Path, tmp_path: Path, sd15: Checkpoint, dtype: torch.dtype
) -> None:
    half = {name: tensor.to(dtype) for name, tensor in lora_files.pair(f"unet.{TO_Q}", 16, 16).items()}
    path = lora_files.write(tmp_path / "lora.safetensors", half)
    down, up = (tensor.float() for tensor in half.values())
    base = dict(base_tensors(sd15.unet))[f"{TO_Q}.weight"]
    found = _merged(sd15.unet, path, 0.5, sd15.adaptable)[f"{TO_Q}.weight"]
    torch.testing.assert_close(found, base + 0.5 * (up @ down), rtol=1e-6, atol=1e-7)
