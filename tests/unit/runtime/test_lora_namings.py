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
from tests.tiny.lora_names import LayerName, kohya_names, write_renamed
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import pair
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


@cache
def _checkpoint(folder: Path) -> Checkpoint:
    return read_checkpoint(folder)


@cache
def _names(folder: Path) -> list[LayerName]:
    """Of all layers."""
    return list(kohya_names(folder).values())


def _underscored(name: str) -> str:
    return name.replace(".", "_")


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


@cache
def _expected(folder: Path) -> Layers:
    path = folder.parent / f"loras/{folder.name}/kohya.safetensors"
    return _layers(read_lora(path, _checkpoint(folder).adaptable))


def _assert_the_same(tmp_path: Path, folder: Path, component: str, rename: Callable[[LayerName], str]) -> None:
    """A file of this component's layers, renamed, has the layers that it has under Kohya's names."""
    path = tmp_path / "lora.safetensors"
    former = write_renamed(path, folder, lambda layer: rename(layer) if layer.component == component else None)
    expected = {target: layer for target, layer in _expected(folder).items() if target.component == component}
    found = read_lora(path, _checkpoint(folder).adaptable)
    assert expected
    assert _layers(found, former) == expected
    assert not found.unmatched


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("spelled", [str, _underscored], ids=["dots", "underscores"])
@pytest.mark.parametrize("names", ["diffusers", "Stability AI"])
@pytest.mark.parametrize("prefix", UNET_PREFIXES)
def test_a_unet_under_every_prefix_and_naming(
    tiny: Path, tmp_path: Path, model: str, spelled: Callable[[str], str], names: str, prefix: str
) -> None:
    def rename(layer: LayerName) -> str:
        return prefix + spelled(layer.module if names == "diffusers" else layer.original)

    _assert_the_same(tmp_path, tiny / model, "unet", rename)


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
@pytest.mark.parametrize(("model", "component", "prefix"), [*_text_cases()])
def test_a_text_encoder_under_every_prefix_and_naming(
    tiny: Path, tmp_path: Path, model: str, component: str, prefix: str, spelled: Callable[[str], str], start: str
) -> None:
    def rename(layer: LayerName) -> str:
        return prefix + spelled(start + layer.module.removeprefix("text_model."))

    _assert_the_same(tmp_path, tiny / model, component, rename)


@pytest.mark.parametrize("start", ["text_model.", ""], ids=["text_model", "bare"])
@pytest.mark.parametrize("prefix", NO_COMPONENT)
@pytest.mark.parametrize(
    ("model", "component"), [("sd15", "text_encoder"), ("sdxl", "text_encoder"), ("sdxl", "text_encoder_2")]
)
def test_a_text_encoder_without_its_name_is_found_by_the_shapes(
    tiny: Path, tmp_path: Path, model: str, component: str, prefix: str, start: str
) -> None:
    def rename(layer: LayerName) -> str:
        return prefix + _underscored(start + layer.module.removeprefix("text_model."))

    _assert_the_same(tmp_path, tiny / model, component, rename)


@given(data=st.data())
@pytest.mark.parametrize("model", MODELS)
def test_prefixes_and_separators_combine_freely(tiny: Path, model: str, data: st.DataObject) -> None:
    unet = [layer for layer in _names(tiny / model) if layer.component == "unet"]
    layer = data.draw(st.sampled_from(unet))
    name = data.draw(st.sampled_from([layer.module, layer.original]))
    wrappers = st.sampled_from(["lora", "lycoris", "base_model.model", "model", "module", "_orig_mod"])
    before, after = data.draw(st.lists(wrappers, max_size=2)), data.draw(st.lists(wrappers, max_size=1))
    component = data.draw(st.sampled_from(["unet", "diffusion_model", "unet.unet"]))
    # torch.compile's wrapper is a module: a dot follows it.
    dotted = ".".join([*before, component, *after, name]).replace("_orig_mod.", "\0")
    parts = dotted.split(".")
    separators = [data.draw(st.sampled_from("._")) for _ in parts[1:]]
    stem = parts[0] + "".join(map("".join, zip(separators, parts[1:], strict=True)))
    names = LayerNames(_checkpoint(tiny / model).adaptable)
    assert names.find(stem.replace("\0", "_orig_mod.")) == (Target("unet", layer.module),)


@pytest.mark.parametrize("model", MODELS)
def test_no_name_is_that_of_two_layers(tiny: Path, model: str) -> None:
    """Names differ in more than dots and underscores, and no layer has another's name in the other naming."""
    for component in KOHYA[model]:
        layers = [layer for layer in _names(tiny / model) if layer.component == component]
        names = {name for layer in layers for name in (layer.module, layer.original)}
        assert len({_underscored(name) for name in names}) == len(names)
        find = LayerNames(_checkpoint(tiny / model).adaptable).find
        for layer in layers:
            target = (Target(component, layer.module),)
            assert find(f"{component}.{layer.module}") == find(f"{component}.{layer.original}") == target


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
    adapter.apply_to()
    adapter.save_weights(str(path), torch.float32, {})
    parts = _checkpoint(tiny / model).adaptable
    contents = read_lora(path, parts)
    assert all(key.startswith("lycoris_") for key in contents.header.tensors)
    assert not contents.unmatched
    assert {layer.target.component for layer in contents.layers} == {component}
    assert len(contents.layers) == len(adapter.loras) > 5
    former = {KOHYA[model][component] + key.removeprefix("lycoris_"): key for key in contents.header.tensors}
    tensors, _ = lora_files.read(path)
    kohya = {new: tensors[key] for new, key in former.items()}
    renamed = read_lora(lora_files.write(tmp_path / "kohya.safetensors", kohya), parts)
    assert _layers(renamed, former) == _layers(contents)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
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
