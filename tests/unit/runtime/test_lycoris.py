"""Every kind of LoRA against the package that defines it: a layer computes with our weights what it does there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import LoHaConfig, LoKrConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.lora_file import read_lora
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import noise
from tests.unit.runtime.lora_files import Tensors
from tests.unit.runtime.merging import merged
from tests.unit.runtime.tiny_checkpoints import base_tensors

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"
CROSS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV3 = "down_blocks.1.resnets.0.conv1"
CONV1 = "down_blocks.1.resnets.0.conv_shortcut"
LAYERS = (LINEAR, CROSS, CONV3, CONV1)
ALGORITHMS: dict[str, Callable[..., nn.Module]] = {
    "lora": lambda layer, **options: LoConModule("", layer, **options),
    "loha": lambda layer, **options: LohaModule("", layer, **options),
    "lokr": lambda layer, **options: LokrModule("", layer, **options),
}
RANKED = {"lora_dim": 4, "alpha": 3.0}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", RANKED),
    "lora rs": ("lora", {**RANKED, "rs_lora": True}),
    "lora tucker": ("lora", {**RANKED, "use_tucker": True}),
    "dora": ("lora", {**RANKED, "weight_decompose": True}),
    "dora on inputs": ("lora", {**RANKED, "weight_decompose": True, "wd_on_out": False}),
    "dora tucker": ("lora", {**RANKED, "use_tucker": True, "weight_decompose": True}),
    "loha": ("loha", RANKED),
    "loha tucker": ("loha", {**RANKED, "use_tucker": True}),
    "loha dora": ("loha", {**RANKED, "weight_decompose": True}),
    "lokr": ("lokr", {"lora_dim": 2, "alpha": 3.0}),
    "lokr factor": ("lokr", {"lora_dim": 3, "alpha": 5.0, "factor": 2}),
    "lokr unbalanced": ("lokr", {"lora_dim": 1, "alpha": 3.0, "unbalanced_factorization": True}),
    "lokr both": ("lokr", {"lora_dim": 1, "alpha": 3.0, "decompose_both": True}),
    "lokr full": ("lokr", {"lora_dim": 4, "alpha": 3.0, "full_matrix": True}),
    "lokr tucker": ("lokr", {"lora_dim": 2, "alpha": 3.0, "use_tucker": True}),
    "lokr dora": ("lokr", {"lora_dim": 2, "alpha": 3.0, "weight_decompose": True}),
}


@pytest.fixture
def base(sd15: Checkpoint) -> Tensors:
    return base_tensors(sd15.unet)


def _layer(base: Tensors, module: str) -> nn.Linear | nn.Conv2d:
    weight, bias = base[f"{module}.weight"], base.get(f"{module}.bias")
    out, inputs, *kernel = weight.shape
    layer: nn.Linear | nn.Conv2d
    if kernel:
        layer = nn.Conv2d(inputs, out, (kernel[0], kernel[1]), padding=kernel[0] // 2, bias=bias is not None)
    else:
        layer = nn.Linear(inputs, out, bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer.requires_grad_(False)


def _input(layer: nn.Linear | nn.Conv2d) -> torch.Tensor:
    inputs = layer.weight.shape[1]
    return noise(2, inputs, 9, 9, seed=5) if isinstance(layer, nn.Conv2d) else noise(7, inputs, seed=5)


def _draw(module: nn.Module, seed: int) -> nn.Module:
    """Random values in all that is trained; magnitudes stay near what they are."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter * (1 + 0.3 * drawn) if name == "dora_scale" else 0.4 * drawn
    return module.requires_grad_(False)


def _keys(module: str, tensors: Tensors) -> Tensors:
    stem = f"lora_unet_{module.replace('.', '_')}"
    return {f"{stem}.{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}


def _load(checkpoint: Checkpoint, base: Tensors, loras: list[tuple[Path, float]]) -> Tensors:
    """The base as these files change it."""
    changes = [lora_files.source(path, read_lora(path, checkpoint.adaptable).layers, scale) for path, scale in loras]
    weights = WeightSet(checkpoint.unet, tuple(changes))
    return base | {name: merged(weights, name, base[name]) for name in weights.changed}


def _assert_computes(base: Tensors, merged: Tensors, module: str, expected: torch.Tensor) -> None:
    original, layer = _layer(base, module), _layer(merged, module)
    found, unchanged = layer(_input(layer)), original(_input(original))
    assert (expected - unchanged).norm() > 0.01 * unchanged.norm(), "it must change something"
    error = (found - expected).norm() / expected.norm()
    assert error < 1e-5, f"{module} differs by {error:.1e}"


@pytest.mark.parametrize("scale", [1.0, 0.7, -1.0])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_layer_computes_what_lycoris_does(
    tmp_path: Path, sd15: Checkpoint, base: Tensors, option: str, layer: str, scale: float
) -> None:
    algorithm, options = OPTIONS[option]
    original = _layer(base, layer)
    theirs = _draw(ALGORITHMS[algorithm](original, multiplier=scale, **options), 1)
    path = lora_files.write(tmp_path / "lora.safetensors", _keys(layer, theirs.state_dict()))
    merged = _load(sd15, base, [(path, scale)])
    _assert_computes(base, merged, layer, theirs(_input(original)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("first", "second"), [("lora", "loha"), ("dora", "lokr"), ("lokr dora", "dora"), ("lora", "dora")]
)
def test_two_files_on_one_layer_are_what_lycoris_makes_of_them(
    tmp_path: Path, sd15: Checkpoint, base: Tensors, first: str, second: str, layer: str
) -> None:
    original = _layer(base, layer)
    loras = []
    for seed, (option, scale) in enumerate(((first, 0.7), (second, -1.0))):
        algorithm, options = OPTIONS[option]
        theirs = _draw(ALGORITHMS[algorithm](original, multiplier=scale, **options), seed)
        path = lora_files.write(tmp_path / f"{seed}.safetensors", _keys(layer, theirs.state_dict()))
        loras.append((path, scale))
        theirs.apply_to()  # type: ignore[operator]
    _assert_computes(base, _load(sd15, base, loras), layer, original(_input(original)))


@pytest.mark.parametrize("scale", [1.0, 0.7, -1.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_full_differences_are_those_of_lycoris(
    tmp_path: Path, sd15: Checkpoint, base: Tensors, layer: str, scale: float
) -> None:
    original = _layer(base, layer)
    theirs = _draw(FullModule("", original, multiplier=scale), 1)
    keys = {"weight": "diff", "bias": "diff_b"}
    tensors = {keys[name]: parameter.data for name, parameter in theirs.named_parameters()}
    path = lora_files.write(tmp_path / "lora.safetensors", _keys(layer, tensors))
    _assert_computes(base, _load(sd15, base, [(path, scale)]), layer, theirs(_input(original)))


@pytest.mark.parametrize("scale", [1.0, 0.7, -1.0])
@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.norm1", lambda: nn.LayerNorm(32)),
        ("down_blocks.1.resnets.0.norm2", lambda: nn.GroupNorm(4, 32)),
    ],
)
def test_norms_are_those_of_lycoris(
    tmp_path: Path, sd15: Checkpoint, base: Tensors, module: str, make: Callable[[], nn.Module], scale: float
) -> None:
    original = make()
    original.load_state_dict({name: base[f"{module}.{name}"] for name in ("weight", "bias")})
    theirs = _draw(NormModule("", original, multiplier=scale), 1)
    path = lora_files.write(tmp_path / "lora.safetensors", _keys(module, theirs.state_dict()))
    merged = _load(sd15, base, [(path, scale)])
    expected = theirs(noise(3, 32))
    assert (expected - original(noise(3, 32))).norm() > 0.01 * expected.norm()
    original.load_state_dict({name: merged[f"{module}.{name}"] for name in ("weight", "bias")})
    torch.testing.assert_close(original(noise(3, 32)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.7, -1.0])
@pytest.mark.parametrize(
    "config",
    [
        LoHaConfig(r=4, alpha=3, init_weights=False),
        LoHaConfig(r=4, alpha=3, init_weights=False, use_effective_conv2d=True),
        LoKrConfig(r=2, alpha=3, init_weights=False),
        LoKrConfig(r=2, alpha=3, init_weights=False, use_effective_conv2d=True),
        LoKrConfig(r=1, alpha=3, init_weights=False, decompose_both=True),
    ],
)
def test_weights_are_those_that_peft_merges(
    tmp_path: Path, sd15: Checkpoint, base: Tensors, config: LoHaConfig | LoKrConfig, scale: float
) -> None:
    layers = nn.ModuleDict({module.replace(".", "_"): _layer(base, module) for module in LAYERS})
    config.target_modules = set(layers.keys())
    model = get_peft_model(layers, config)
    _draw(model, 1)
    stems = {f"base_model.model.{module.replace('.', '_')}": f"unet.{module}" for module in LAYERS}
    tensors = {f"{stem}.alpha": torch.tensor(config.alpha) for stem in stems.values()}
    for name, tensor in get_peft_model_state_dict(model).items():
        stem, _, role = name.rpartition(".")
        tensors[f"{stems[stem]}.{role}"] = tensor.contiguous()
    for module in model.base_model.model.values():
        module.set_scale("default", scale)
    theirs = model.merge_and_unload()
    path = lora_files.write(tmp_path / "lora.safetensors", tensors)
    merged = _load(sd15, base, [(path, scale)])
    for module in LAYERS:
        expected, name = theirs[module.replace(".", "_")].weight, f"{module}.weight"
        assert (expected - base[name]).norm() > 0.01 * base[name].norm()
        error = (merged[name] - expected).norm() / expected.norm()
        assert error < 1e-5, f"{module} differs by {error:.1e}"
