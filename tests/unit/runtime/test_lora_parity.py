"""LoRA: what a file does to the weights is what diffusers does with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from lycoris.utils import convert_diffusers_name_to_compvis
from peft import LoraConfig, get_peft_model_state_dict

from runtime.checkpoints.canonical_names import canonical_name
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.original_unet_names import block_starts, unet_name
from runtime.lora.lora_file import read_lora
from runtime.lora.stability_names import stability_names
from runtime.weights.weight_set import WeightSet
from tests.tiny.loras import SD15_PARTS, write_kohya, write_peft
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import make_engine, predict, unet_inputs
from tests.unit.runtime.lora_files import Tensors
from tests.unit.runtime.merging import merged
from tests.unit.runtime.tiny_checkpoints import base_tensors, read_checkpoint

PIPELINES = {"sd15": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
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
    return {canonical_name(component, name): tensor for name, tensor in tensors.items()}


def _merged(component: Component, lora: Path, scale: float, parts: tuple[Component, ...]) -> Tensors:
    layers = [layer for layer in read_lora(lora, parts).layers if layer.target.component == component.name]
    weights = WeightSet(component, (lora_files.source(lora, layers, scale),))
    base = base_tensors(component)
    return base | {name: merged(weights, name, base[name]) for name in weights.changed}


@cache
def _base(folder: Path) -> Checkpoint:
    return read_checkpoint(folder)


def _assert_the_same(checkpoint: Path, lora: Path, scale: float) -> None:
    _assert_equals(checkpoint, lora, scale, _fused(checkpoint, lora, scale))


def _assert_equals(checkpoint: Path, lora: Path, scale: float, expected: dict[str, Tensors]) -> None:
    parts = _base(checkpoint).adaptable
    base = {part.name: base_tensors(part) for part in parts}
    assert any(not torch.equal(base[part][name], tensor) for part in base for name, tensor in expected[part].items())
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


@pytest.mark.parametrize(("style", "scale"), [("peft", 0.7), ("kohya", -1.0)])
def test_loras_of_sd2_are_read_as_diffusers_reads_them(tiny: Path, tmp_path: Path, style: str, scale: float) -> None:
    path = tmp_path / "lora.safetensors"
    if style == "peft":
        write_peft(path, tiny / "sd2", SD15_PARTS, 51, alpha=6)
    else:
        write_kohya(path, tiny / "sd2", SD15_PARTS, 52)
    _assert_the_same(tiny / "sd2", path, scale)


@pytest.mark.parametrize("part", ["lora_unet_", "lora_te1_", "lora_te2_"])
def test_a_file_of_one_network_alone_is_read_as_diffusers_reads_it(tiny: Path, tmp_path: Path, part: str) -> None:
    tensors, _ = lora_files.read(tiny / "loras/sdxl/kohya.safetensors")
    alone = {name: tensor for name, tensor in tensors.items() if name.startswith(part)}
    _assert_the_same(tiny / "sdxl", lora_files.write(tmp_path / "lora.safetensors", alone), 0.7)


def test_the_other_naming_of_sdxl_is_read_as_diffusers_reads_it(tiny: Path, tmp_path: Path) -> None:
    """Kohya's SDXL LoRAs name the blocks as Stability's code does. LyCORIS has the table of its own."""
    tensors, _ = lora_files.read(tiny / "loras/sdxl/kohya.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        stem, _, role = name.partition(".")
        renamed[f"{convert_diffusers_name_to_compvis(stem)}.{role}"] = tensor
    assert sum(name not in tensors for name in renamed) > 400
    _assert_the_same(tiny / "sdxl", lora_files.write(tmp_path / "lora.safetensors", renamed), 0.7)


@pytest.mark.parametrize("model", ["sd15", "sd2", "sdxl"])
def test_every_layer_has_the_name_that_checkpoints_have(tiny: Path, model: str) -> None:
    modules = {name.rpartition(".")[0] for name in _base(tiny / model).unet.shapes}
    names = stability_names(modules)
    assert names.keys() == modules
    starts = block_starts(f"{name}.weight" for name in names.values())
    assert all(unet_name(f"{name}.weight", starts) == f"{module}.weight" for module, name in names.items())


DORA = ["to_q", "to_k", "ff.net.0.proj", "conv1", "proj_in"]


def _write_dora(folder: Path, checkpoint: Path, seed: int, use_dora: bool = True) -> Path:
    """A LoRA that PEFT made and diffusers saved."""
    pipe, generator = PIPELINES[checkpoint.name].from_pretrained(checkpoint), torch.Generator().manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=6, use_dora=use_dora, target_modules=DORA, init_lora_weights=False)
    pipe.unet.add_adapter(config)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_" in name:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter * (1 + 0.3 * drawn) if "magnitude" in name else 0.2 * drawn
    layers = get_peft_model_state_dict(pipe.unet)
    pipe.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=config.to_dict())
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("scale", [1.0, 0.7, -1.0])
def test_dora_by_peft_is_read_as_diffusers_reads_it(tiny: Path, tmp_path: Path, scale: float) -> None:
    path = _write_dora(tmp_path, tiny / "sd15", 1)
    assert any("lora_magnitude_vector" in name for name in lora_files.read(path)[0])
    _assert_the_same(tiny / "sd15", path, scale)


def test_dora_by_lycoris_is_dora_by_peft_at_scale_1(tiny: Path, tmp_path: Path) -> None:
    """diffusers leaves LyCORIS' magnitudes out. At another scale the two packages differ, and so do we."""
    tensors, metadata = lora_files.read(_write_dora(tmp_path, tiny / "sd15", 1))
    renamed = {}
    for name, tensor in tensors.items():
        stem, is_magnitude, _ = name.partition(".lora_magnitude_vector")
        shape = (-1, *(1 for _ in tensors[f"{stem}.lora_A.weight"].shape[1:])) if is_magnitude else tensor.shape
        renamed[f"{stem}.dora_scale" if is_magnitude else name] = tensor.reshape(shape).contiguous()
    path = lora_files.write(tmp_path / "lycoris.safetensors", renamed, metadata[lora_files.METADATA])
    _assert_equals(tiny / "sd15", path, 1.0, _fused(tiny / "sd15", tmp_path / "pytorch_lora_weights.safetensors", 1.0))
    with pytest.raises(AssertionError, match="differs by"):
        _assert_equals(
            tiny / "sd15", path, 0.5, _fused(tiny / "sd15", tmp_path / "pytorch_lora_weights.safetensors", 0.5)
        )


def test_two_files_at_once_predict_what_diffusers_does(tiny: Path, tmp_path: Path, sd15: Checkpoint) -> None:
    """One with DoRA, one without, on the same layers: each changes the base, not what the other made of it."""
    inputs, scales = unet_inputs("sd"), [0.7, -1.0]
    paths = [_write_dora(tmp_path / name, tiny / "sd15", seed, name == "a") for seed, name in enumerate("ab")]
    pipe = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    for name, path in zip("ab", paths, strict=True):
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    pipe.set_adapters(["a", "b"], scales)
    with torch.no_grad():
        expected = pipe.unet(inputs["latent"], inputs["t"], inputs["text"]).sample
    layers = [read_lora(path, sd15.adaptable).layers for path in paths]
    changes = tuple(map(lora_files.source, paths, layers, scales))
    found = predict(make_engine("unet", sd15.unet)[0], WeightSet(sd15.unet, changes), inputs)
    assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("rename", [lambda name: name, lambda name: name.removeprefix("unet.")])
def test_diffusers_first_loras_of_a_text_encoder_and_of_a_unet(
    tiny: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    """The first UNet files did not name the network. diffusers reads them no more; with the name it does."""
    text = "text_encoder.text_model.encoder.layers.0.self_attn"
    attention, tensors = "unet." + TO_Q.removesuffix(".to_q"), {}
    for seed, layer in enumerate(("to_q", "to_k", "to_v", "to_out")):
        for stem, width in ((text, 32), (f"{attention}.processor", 16)):
            made = lora_files.pair("x", width, width, seed=seed)
            tensors[f"{stem}.{layer}_lora.down.weight"] = made["x.lora_A.weight"]
            tensors[f"{stem}.{layer}_lora.up.weight"] = made["x.lora_B.weight"]
    expected = _fused(tiny / "sd15", lora_files.write(tmp_path / "a.safetensors", tensors), 1.0)
    path = lora_files.write(tmp_path / "b.safetensors", {rename(name): tensor for name, tensor in tensors.items()})
    _assert_equals(tiny / "sd15", path, 1.0, expected)


def test_a_lora_of_scale_0_changes_nothing(tiny: Path, sd15: Checkpoint) -> None:
    lora = tiny / "loras/sd15/kohya.safetensors"
    for part in sd15.adaptable:
        base = base_tensors(part)
        assert all(torch.equal(tensor, base[name]) for name, tensor in _merged(part, lora, 0.0, sd15.adaptable).items())


def test_the_tiny_loras_change_every_kind_of_layer(tiny: Path, sd15: Checkpoint) -> None:
    """Or the parity above would say little."""
    layers = read_lora(tiny / "loras/sd15/kohya.safetensors", sd15.adaptable).layers
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
    base = base_tensors(sd15.unet)[f"{TO_Q}.weight"]
    found = _merged(sd15.unet, path, 0.5, sd15.adaptable)[f"{TO_Q}.weight"]
    torch.testing.assert_close(found, base + 0.5 * (up @ down), rtol=1e-6, atol=1e-7)
