"""The runtime reads and runs the checkpoints, LoRAs and adapters that the benchmarks write, here in small sizes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.forward_passes import ForwardPasses
from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, STORED, Sizes, write_checkpoint
from benchmarks.full_size_adapters import write_controlnet, write_image_encoder, write_ip_adapter
from benchmarks.lora_files import write_lora
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.cross_attention import cross_attentions
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.checkpoints.read_ip_adapter import check_fits, read_ip_adapter
from runtime.files.located import Folder
from runtime.lora.lora_file import read_lora
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.networks.build import build, parameters
from tests.unit.runtime.tiny_checkpoints import digest, read_checkpoint

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
SMALL_VISION = {**TEXT, "projection_dim": 16, "image_size": 32, "patch_size": 8}
SMALL_VAE = {"block_out_channels": (32, 32, 64, 64)}


def small(sizes: Sizes, unet: dict[str, Any], *texts: dict[str, Any]) -> Sizes:
    return replace(sizes, unet=sizes.unet | unet, vae=sizes.vae | SMALL_VAE, text_encoders=texts)


SD15 = small(SD15_SIZES, {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32}, TEXT)
SDXL = small(
    SDXL_SIZES,
    {
        "block_out_channels": (32, 64, 64),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 4, 4),
        "cross_attention_dim": 64,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
    TEXT,
    {**TEXT, "projection_dim": 16},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SD 1.5."""
    path = tmp_path_factory.mktemp("full") / "sd15"
    write_checkpoint(path, SD15, seed=1)
    return path


def test_the_runtime_reads_sd15_and_its_engines_run_it(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.kind == "sd"
    assert checkpoint.scaling_factor == 0.18215
    assert checkpoint.scheduler["_class_name"] == "PNDMScheduler"
    assert math.isfinite(ForwardPasses(folder, pixels=64).run(steps=1))


def test_the_runtime_reads_sdxl(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SDXL, seed=2)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.kind == "sdxl"
    assert len(checkpoint.text_encoders) == len(checkpoint.tokenizers) == 2
    assert (checkpoint.native_size, checkpoint.scaling_factor) == (1024, 0.13025)


def test_the_runtime_reads_a_controlnet_of_sd15(folder: Path, tmp_path: Path) -> None:
    write_controlnet(tmp_path, SD15, seed=4)
    found = read_controlnet(Folder(tmp_path, tmp_path), read_checkpoint(folder).unet, digest)
    assert_network_fits(found, "controlnet")


def test_the_runtime_reads_an_ip_adapter_of_sd15_and_its_image_encoder(folder: Path, tmp_path: Path) -> None:
    unet = read_checkpoint(folder).unet
    write_image_encoder(tmp_path / "encoder", SMALL_VISION, seed=5)
    write_ip_adapter(tmp_path / "adapter.safetensors", SD15, SMALL_VISION, seed=6)
    adapter = read_ip_adapter(digest(tmp_path / "adapter.safetensors"))
    check_fits(adapter, cross_attentions(unet), unet.config["cross_attention_dim"])
    assert {name: adapter.config[name] for name in ("projection", "tokens")} == {"projection": "base", "tokens": 4}
    assert_network_fits(adapter, "image_projection")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    encoder = read_image_encoder(digest(tmp_path / "encoder" / "model.safetensors"), config)
    assert_network_fits(encoder, "image_encoder")


def assert_network_fits(component: Component, kind: NetworkKind) -> None:
    """The network of the component's configuration has exactly its tensors, and they are bfloat16."""
    network = parameters(build(architecture_of(kind, component.config)))
    assert dict(component.shapes) == {name: tuple(parameter.shape) for name, parameter in network.items()}
    (file,) = component.files
    assert all(tensor.dtype == STORED and tensor.isfinite().all() for tensor in load_file(file.path).values())


def test_weights_are_bfloat16_finite_and_follow_from_the_seed(folder: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "again", SD15, seed=1)
    write_checkpoint(tmp_path / "other", SD15, seed=9)
    file = Path("unet") / "diffusion_pytorch_model.safetensors"
    weights = load_file(folder / file)
    assert all(tensor.dtype == STORED and tensor.isfinite().all() for tensor in weights.values())
    assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    assert not weights["conv_in.weight"].equal(load_file(tmp_path / "other" / file)["conv_in.weight"])


def test_a_lora_changes_every_attention_layer_of_the_unet(folder: Path, tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.safetensors", folder, seed=3)
    checkpoint = read_checkpoint(folder)
    layers = read_lora(tmp_path / "lora.safetensors", checkpoint.adaptable).layers
    changed = {layer.target.parameter for layer in layers}
    attention = {name for name in checkpoint.unet.shapes if ".attn" in name and name.endswith("weight")}
    assert changed == attention
