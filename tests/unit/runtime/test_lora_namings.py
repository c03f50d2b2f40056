"""LoRA files under all names that tools give to layers: the same layers as under Kohya's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from lycoris import LycorisNetwork, create_lycoris
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.layer_names import LayerNames, Target
from runtime.lora.lora_file import LoraContents, read_lora
from tests.tiny.original import original_unet
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import Tensors, pair
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

MODELS = ("sd15", "sdxl")
KOHYA = {
    "sd15": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sdxl": {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
}
UNET_PREFIXES = [
    *("", "unet.", "unet_", "lora_unet_", "lora_unet.", "lycoris_", "lycoris_unet_"),
    *("diffusion_model.", "model.diffusion_model.", "model_diffusion_model_", "unet.unet.", "module.unet._orig_mod."),
    *("base_model.model.", "unet.base_model.model.", "base_model.model.unet.", "base_model.model.model."),
]
# Of the first and of the second text encoder.
TEXT_PREFIXES = [
    *(("lora_te1_", "lora_te2_"), ("lora_te1.", "lora_te2."), ("lycoris_te1_", "lycoris_te2_")),
    *(("text_encoder.", "text_encoder_2."), ("text_encoder.base_model.model.", "text_encoder_2.base_model.model.")),
    *(("text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."), ("clip_l.", "clip_g.")),
    *(("clip_l.transformer.", "clip_g.transformer."), ("lora_clip_l_", "lora_clip_g_")),
    *(("text_encoders.clip_l.", "text_encoders.clip_g."), ("te1.", "te2.")),
    ("base_model.model.text_encoder.", "base_model.model.text_encoder_2."),
    ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.transformer."),
]
ONLY_TEXT_PREFIXES = ["lora_te_", "cond_stage_model.transformer.", "text_encoders.clip_h.transformer.", "clip_h."]
NO_COMPONENT = ["", "lycoris_", "base_model.model.", "text_encoders.transformer."]

Layers = dict[Target, tuple[object, ...]]
Rename = Callable[[str], str]  # of a module


@cache
def _checkpoint(folder: Path) -> Checkpoint:
    return read_checkpoint(folder)


@cache
def _original_names(folder: Path) -> dict[str, str]:
    """The UNet's modules -> their names in Stability AI's code."""
    numbered = {name: torch.tensor(number) for number, name in enumerate(_checkpoint(folder).unet.shapes)}
    names = list(numbered)
    renamed = ((names[int(number)], original) for original, number in original_unet(numbered).items())
    return {name.rpartition(".")[0]: original.rpartition(".")[0] for name, original in renamed}


def _modules(folder: Path, component: str) -> list[str]:
    part = next(part for part in _checkpoint(folder).adaptable if part.name == component)
    return list(dict.fromkeys(name.rpartition(".")[0] for name in part.shapes))


def _underscored(name: str) -> str:
    return name.replace(".", "_")


def _renamed(folder: Path, component: str, rename: Rename, alone: bool = False) -> tuple[Tensors, dict[str, str]]:
    """The tensors of Kohya's tiny LoRA with one component's layers renamed; and new key -> Kohya's key.

    With `alone`, the tensors of that component are the only ones.
    """
    prefix = KOHYA[folder.name][component]
    stems = {prefix + _underscored(module): rename(module) for module in _modules(folder, component)}
    tensors, _ = lora_files.read(folder.parent / f"loras/{folder.name}/kohya.safetensors")
    renamed, former = {}, {}
    for key, tensor in tensors.items():
        stem, _, end = key.partition(".")
        if stem in stems or not alone:
            new = f"{stems.get(stem, stem)}.{end}"
            renamed[new], former[new] = tensor, key
    assert any(stem in key for stem in stems for key in former.values())
    return renamed, former


def _layers(contents: LoraContents, former: dict[str, str] | None = None) -> Layers:
    """Target -> its kind, tensors by role, and alpha, under the keys that they had before they were renamed."""
    names = former or {key: key for key in contents.header.tensors}
    return {
        layer.target: (
            layer.kind.name,
            {role: names[key] for role, key in layer.keys.items()},
            names[layer.alpha] if isinstance(layer.alpha, str) else layer.alpha,
        )
        for layer in contents.layers
    }


def _assert_the_same(tmp_path: Path, folder: Path, component: str, rename: Rename, alone: bool = False) -> None:
    parts = _checkpoint(folder).adaptable
    tensors, former = _renamed(folder, component, rename, alone)
    found = read_lora(lora_files.write(tmp_path / "lora.safetensors", tensors), parts)
    expected = _layers(read_lora(folder.parent / f"loras/{folder.name}/kohya.safetensors", parts))
    if alone:
        expected = {target: layer for target, layer in expected.items() if target.component == component}
    assert expected
    assert _layers(found, former) == expected
    assert not found.unmatched


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("spelled", [str, _underscored], ids=["dots", "underscores"])
@pytest.mark.parametrize("names", ["diffusers", "Stability AI"])
@pytest.mark.parametrize("prefix", UNET_PREFIXES)
def test_a_unet_under_every_prefix_and_naming(
    tiny: Path, tmp_path: Path, model: str, spelled: Rename, names: str, prefix: str
) -> None:
    original = _original_names(tiny / model)
    _assert_the_same(
        tmp_path,
        tiny / model,
        "unet",
        lambda module: prefix + spelled(module if names == "diffusers" else original[module]),
    )


def _text_cases() -> Iterator[tuple[str, str, str]]:
    """(model, component, prefix)"""
    for first, second in TEXT_PREFIXES:
        yield "sd15", "text_encoder", first
        yield "sdxl", "text_encoder", first
        yield "sdxl", "text_encoder_2", second
    for prefix in ONLY_TEXT_PREFIXES:
        yield "sd15", "text_encoder", prefix


@pytest.mark.parametrize("start", ["text_model.", ""], ids=["text_model", "bare"])
@pytest.mark.parametrize("spelled", [str, _underscored], ids=["dots", "underscores"])
@pytest.mark.parametrize(("model", "component", "prefix"), _text_cases())
def test_a_text_encoder_under_every_prefix_and_naming(
    tiny: Path, tmp_path: Path, model: str, component: str, prefix: str, spelled: Rename, start: str
) -> None:
    def rename(module: str) -> str:
        return prefix + spelled(start + module.removeprefix("text_model."))

    _assert_the_same(tmp_path, tiny / model, component, rename)


@pytest.mark.parametrize("start", ["text_model.", ""], ids=["text_model", "bare"])
@pytest.mark.parametrize("prefix", NO_COMPONENT)
@pytest.mark.parametrize(
    ("model", "component"), [("sd15", "text_encoder"), ("sdxl", "text_encoder"), ("sdxl", "text_encoder_2")]
)
def test_a_text_encoder_without_its_name_is_found_by_the_shapes(
    tiny: Path, tmp_path: Path, model: str, component: str, prefix: str, start: str
) -> None:
    def rename(module: str) -> str:
        return prefix + _underscored(start + module.removeprefix("text_model."))

    _assert_the_same(tmp_path, tiny / model, component, rename, alone=True)


@given(data=st.data())
@pytest.mark.parametrize("model", MODELS)
def test_prefixes_and_separators_combine_freely(tiny: Path, model: str, data: st.DataObject) -> None:
    checkpoint = _checkpoint(tiny / model)
    module = data.draw(st.sampled_from(_modules(tiny / model, "unet")))
    name = data.draw(st.sampled_from([module, _original_names(tiny / model)[module]]))
    wrappers = st.sampled_from(["lora", "lycoris", "base_model.model", "model", "module", "_orig_mod"])
    before, after = data.draw(st.lists(wrappers, max_size=2)), data.draw(st.lists(wrappers, max_size=1))
    component = data.draw(st.sampled_from(["unet", "diffusion_model", "unet.unet"]))
    dotted = ".".join([*before, component, *after, name])
    # torch.compile's wrapper is a module: it is between dots.
    parts = dotted.replace("_orig_mod.", "\0").split(".")
    separators = [data.draw(st.sampled_from("._")) for _ in parts[1:]]
    stem = parts[0] + "".join(map("".join, zip(separators, parts[1:], strict=True)))
    stem = stem.replace("\0", "_orig_mod.")
    assert LayerNames(checkpoint.adaptable).find(stem) == (Target("unet", module),)


@pytest.mark.parametrize("model", MODELS)
def test_no_name_is_that_of_two_layers(tiny: Path, model: str) -> None:
    """Names differ in more than dots and underscores, and no name is another layer's in the other naming."""
    original = _original_names(tiny / model)
    assert len({_underscored(name) for name in original.values()} | {_underscored(name) for name in original}) == len(
        {*original, *original.values()}
    )
    names = LayerNames(_checkpoint(tiny / model).adaptable)
    for module, name in original.items():
        assert names.find(f"unet.{module}") == names.find(f"unet.{name}") == (Target("unet", module),)


@pytest.mark.parametrize(
    "stem",
    [
        *("", ".", "unet", "unet.", "lora_unet", "nothing", "unet.nothing", "lora_prior_unet_conv_in"),
        *("unet.text_encoder.conv_in", "text_encoder.conv_in", "text_encoder_2.conv_in", "vae.conv_in", "te3_conv_in"),
        *("lora_" * 8 + "unet_conv_in", "unetconv_in", "unet-conv_in"),
    ],
)
def test_other_stems_name_no_layer(sd15: Checkpoint, stem: str) -> None:
    assert LayerNames(sd15.adaptable).find(stem) == ()


def test_comfyui_saves_differences_of_norms_and_biases(tmp_path: Path, sdxl: Checkpoint) -> None:
    names = {"text_encoder": "text_encoders.clip_l.transformer", "text_encoder_2": "text_encoders.clip_g.transformer"}
    tensors = {}
    for part in sdxl.adaptable[1:]:
        for end, parameter in (("diff", "weight"), ("diff_b", "bias")):
            norm = "text_model.encoder.layers.0.layer_norm1"
            tensors[f"{names[part.name]}.{norm}.{end}"] = torch.ones(part.shapes[f"{norm}.{parameter}"])
    tensors["diffusion_model.out.0.diff"] = torch.ones(sdxl.unet.shapes["conv_norm_out.weight"])
    tensors["diffusion_model.out.0.diff_b"] = torch.ones(sdxl.unet.shapes["conv_norm_out.bias"])
    contents = read_lora(lora_files.write(tmp_path / "lora.safetensors", tensors), sdxl.adaptable)
    assert {(layer.target.component, layer.target.attribute) for layer in contents.layers} == set(
        product(("unet", "text_encoder", "text_encoder_2"), ("weight", "bias"))
    )


def test_bare_names_and_adapter_names_of_lora_tensors(tmp_path: Path, sd15: Checkpoint) -> None:
    """ComfyUI reads `….lora_A`; a state dict of PEFT's has the adapter's name in its keys."""
    for index, end in enumerate(("", ".default.weight", ".default_0.weight", ".my-style.weight")):
        tensors = {key.removesuffix(".weight") + end: tensor for key, tensor in pair("unet.conv_in", 16, 36).items()}
        contents = read_lora(lora_files.write(tmp_path / f"{index}.safetensors", tensors), sd15.adaptable)
        assert [layer.target for layer in contents.layers] == [Target("unet", "conv_in")]
        assert not contents.unmatched


UNET_CLASSES = ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"]


@pytest.mark.parametrize("algorithm", ["lora", "lokr"])
@pytest.mark.parametrize(
    ("model", "component"),
    [
        *(("sd15", "unet"), ("sd15", "text_encoder")),
        *(("sdxl", "unet"), ("sdxl", "text_encoder"), ("sdxl", "text_encoder_2")),
    ],
)
def test_the_file_that_the_lycoris_package_saves(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, component: str, algorithm: str
) -> None:
    loaders: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    network = loaders[component].from_pretrained(tiny / model / component)
    classes = UNET_CLASSES if component == "unet" else ["CLIPAttention", "CLIPMLP"]
    monkeypatch.setattr(LycorisNetwork, "TARGET_REPLACE_MODULE", classes)
    adapter = create_lycoris(network, 1.0, linear_dim=2, linear_alpha=1, algo=algorithm)
    path = tmp_path / "lora.safetensors"
    adapter.save_weights(str(path), torch.float32, {})
    parts = _checkpoint(tiny / model).adaptable
    contents = read_lora(path, parts)
    assert all(key.startswith("lycoris_") for key in contents.header.tensors)
    assert not contents.unmatched
    assert {layer.target.component for layer in contents.layers} == {component}
    assert len(contents.layers) == len(adapter.loras) > 5
    kohya, former = {}, {}
    for key, tensor in lora_files.read(path)[0].items():
        new = KOHYA[model][component] + key.removeprefix("lycoris_")
        kohya[new], former[new] = tensor, key
    renamed = read_lora(lora_files.write(tmp_path / "kohya.safetensors", kohya), parts)
    assert _layers(renamed, former) == _layers(contents)


@pytest.mark.parametrize(("model", "component"), [("sd15", "unet"), ("sdxl", "text_encoder_2")])
def test_the_file_that_peft_saves(tiny: Path, tmp_path: Path, model: str, component: str) -> None:
    loader: Any = UNet2DConditionModel if component == "unet" else CLIPTextModelWithProjection
    network = loader.from_pretrained(tiny / model / component)
    targets = ["to_q", "to_out.0", "conv1"] if component == "unet" else ["q_proj", "fc1"]
    adapted = get_peft_model(network, LoraConfig(r=2, lora_alpha=4, target_modules=targets))
    saved = get_peft_model_state_dict(adapted)
    assert all(key.startswith("base_model.model.") for key in saved)
    contents = read_lora(lora_files.write(tmp_path / "lora.safetensors", saved), _checkpoint(tiny / model).adaptable)
    assert not contents.unmatched
    assert 2 * len(contents.layers) == len(saved)
    assert {layer.target.component for layer in contents.layers} == {component}
