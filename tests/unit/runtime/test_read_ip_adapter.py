"""Files of IP-Adapters and of image encoders, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.cross_attention import CrossAttention, cross_attentions
from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.checkpoints.read_ip_adapter import check_fits, read_ip_adapter
from runtime.networks.architecture import architecture_of
from runtime.networks.build import build, parameters
from tests.tiny.ip_adapters import PLUS_LAYERS, PLUS_TOKENS
from tests.tiny.vision import PATCH, SIDE, WIDTH
from tests.unit.runtime.layout_files import plus_of_width
from tests.unit.runtime.tiny_checkpoints import digest

ADAPTERS = ("base", "plus", "full", "faceid", "faceid_plus", "portrait", "instant_id")


def read(path: Path, checkpoint: Checkpoint) -> Component:
    adapter = read_ip_adapter(digest(path))
    check_fits(adapter, cross_attentions(checkpoint.unet), checkpoint.unet.config["cross_attention_dim"])
    return adapter


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_network_has_each_tensor_of_the_file(tiny: Path, sdxl: Checkpoint, kind: str) -> None:
    found = read(tiny / "ip_adapters" / "sdxl" / f"{kind}.safetensors", sdxl)
    network = build(architecture_of("image_projection", found.config))
    expected = {name: tuple(parameter.shape) for name, parameter in parameters(network).items()}
    assert dict(found.shapes) == expected


def test_a_file_of_a_training_run_is_read_alike(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = tiny / "ip_adapters" / "sd15" / "base.safetensors"
    names = {"image_proj.": "image_proj_model.", "ip_adapter.": "adapter_modules."}
    renamed = {}
    for name, tensor in load_file(path).items():
        root = next(root for root in names if name.startswith(root))
        renamed[names[root] + name.removeprefix(root)] = tensor
    save_file(renamed, tmp_path / "trained.safetensors")
    found, expected = read(tmp_path / "trained.safetensors", sd15), read(path, sd15)
    assert (found.config, dict(found.shapes)) == (expected.config, dict(expected.shapes))


def test_the_resampler_is_read_off_the_shapes(tiny: Path, sd15: Checkpoint) -> None:
    config = read(tiny / "ip_adapters" / "sd15" / "plus.safetensors", sd15).config
    found = {name: config[name] for name in ("projection", "tokens", "depth", "heads", "ffn_ratio")}
    assert found == {"projection": "plus", "tokens": PLUS_TOKENS, "depth": PLUS_LAYERS, "heads": 1, "ffn_ratio": 4.0}


def test_an_adapter_of_another_checkpoint_is_refused(tiny: Path, sd15: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="does not fit the checkpoint"):
        read(tiny / "ip_adapters" / "sdxl" / "base.safetensors", sd15)


@pytest.mark.parametrize("hidden", [1280, 2048])
def test_a_resampler_of_kolors_is_refused_though_its_keys_fit_sdxl(tmp_path: Path, hidden: int) -> None:
    path = tmp_path / "plus.safetensors"
    save_torch_file(plus_of_width(hidden, 2048), path)
    adapter, layers = read_ip_adapter(digest(path)), [CrossAttention("attn2", 4)]
    if hidden == 1280:
        check_fits(adapter, layers, 2048)
    else:
        with pytest.raises(CheckpointError, match="made for Kolors"):
            check_fits(adapter, layers, 2048)


OTHERS = {
    "lora_unet_down_blocks_0.lora.weight": "a LoRA: give it in loras",
    "double_blocks.0.img_attn.qkv.weight": "it is Flux",
    "control_model.input_hint_block.0.weight": "a ControlNet",
    "image_proj.proj.weight": "expected tensors image_proj",
    "stranger": "expected tensors image_proj",
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_refused_by_its_name(sd15: Checkpoint, tmp_path: Path, name: str) -> None:
    save_file({name: np.zeros((4, 4), np.float32)}, tmp_path / "file.safetensors")
    with pytest.raises(CheckpointError, match=OTHERS[name]):
        read(tmp_path / "file.safetensors", sd15)


def test_a_resampler_to_which_no_shortcut_fits_is_refused(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    tensors = load_file(tiny / "ip_adapters" / "sd15" / "faceid_plus.safetensors")
    for name in ("proj_out.weight", "proj_out.bias"):
        tensor = tensors[f"image_proj.perceiver_resampler.{name}"]
        tensors[f"image_proj.perceiver_resampler.{name}"] = np.concatenate([tensor, tensor])
    save_file(tensors, tmp_path / "face.safetensors")
    with pytest.raises(CheckpointError, match="shortcut"):
        read(tmp_path / "face.safetensors", sd15)


def test_an_image_encoder_is_read_with_its_configuration(tiny: Path) -> None:
    folder = tiny / "ip_adapters" / "sd15" / "image_encoder"
    config = json.loads((folder / "config.json").read_text())
    found = read_image_encoder(digest(folder / "model.safetensors"), config)
    assert (found.config["hidden_size"], found.config["image_size"]) == (WIDTH, SIDE)
    whole = {"vision_config": config, "projection_dim": config["projection_dim"], "architectures": ["CLIPModel"]}
    assert read_image_encoder(digest(folder / "model.safetensors"), whole).config["patch_size"] == PATCH


def test_an_encoder_of_no_published_size_needs_its_configuration(tiny: Path) -> None:
    folder = tiny / "ip_adapters" / "sd15" / "image_encoder"
    with pytest.raises(CheckpointError, match=f"hidden size is {WIDTH}"):
        read_image_encoder(digest(folder / "model.safetensors"), None)


def test_another_network_is_no_image_encoder(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match="no CLIP image encoder"):
        read_image_encoder(digest(tiny / "ip_adapters" / "sd15" / "base.safetensors"), None)
