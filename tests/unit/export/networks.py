"""The tiny networks that are exported: their architectures and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export.trace import allocate
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.read_ip_adapter import read_ip_adapter
from runtime.networks.architecture import Architecture, NetworkKind, architecture_of
from runtime.networks.build import build, parameters
from runtime.networks.network import Network
from tests.tiny.weights import fill
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest, read_checkpoint, read_component

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """`weights`: by canonical name, as the files of a checkpoint hold them."""

    architecture: Architecture
    weights: Weights

    @property
    def options(self) -> dict[str, Any]:
        return self.architecture.options


def load(architecture: Architecture, weights: Weights) -> Network:
    """The torch network with these weights."""
    network = build(architecture)
    for name, (module, attribute, shape) in parameters(network).items():
        value = weights[name].float().reshape(shape)
        module._parameters[attribute] = nn.Parameter(value, requires_grad=False)
    return network


def of_component(kind: NetworkKind, component: Component) -> TinyNetwork:
    architecture = architecture_of(kind, component.config)
    names = parameters(build(architecture))
    weights = {name: tensor for name, tensor in base_tensors(component).items() if name in names}
    return TinyNetwork(architecture, weights)


def _part(folder: str, kind: NetworkKind, part: str) -> Callable[[Path], TinyNetwork]:
    def read(tiny: Path) -> TinyNetwork:
        checkpoint: Checkpoint = read_checkpoint(tiny / folder)
        found = {component.name: component for component in checkpoint.components}
        return of_component(kind, found[part])

    return read


def _unet(folder: str) -> Callable[[Path], TinyNetwork]:
    return lambda tiny: of_component("unet", read_component("unet", tiny / folder / "unet"))


def _controlnet(with_time_ids: bool = False, **changes: Any) -> Callable[[Path], TinyNetwork]:
    """A ControlNet whose last layers are not zero."""
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 40 + 6 * 8,
    }
    config: dict[str, Any] = {
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 80 if with_time_ids else 32,
        "conditioning_embedding_out_channels": [8, 8, 16, 16],
    }

    return lambda _: _random("controlnet", config | (added if with_time_ids else {}) | changes)


def _random(kind: NetworkKind, config: dict[str, Any]) -> TinyNetwork:
    architecture = architecture_of(kind, config)
    network = build(architecture)
    allocate(network)
    fill(network.weights, 7, {})
    return TinyNetwork(architecture, network.weights.state_dict())


def _small_unet(**changes: Any) -> Callable[[Path], TinyNetwork]:
    """A UNet of two levels with one layer each, for what takes long with more."""
    config: dict[str, Any] = {
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    }
    return lambda _: _random("unet", config | changes)


def _vision(kind: NetworkKind) -> Callable[[Path], TinyNetwork]:
    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    return lambda _: _random(kind, config)


def _image_projection(kind: str) -> Callable[[Path], TinyNetwork]:
    def read(tiny: Path) -> TinyNetwork:
        path = tiny / "ip_adapters" / "sd15" / f"{kind}.safetensors"
        return of_component("image_projection", read_ip_adapter(digest(path)))

    return read


NETWORKS: dict[str, Callable[[Path], TinyNetwork]] = {
    "sd15 unet": _part("sd15", "unet", "unet"),
    "sd2 unet": _part("sd2", "unet", "unet"),
    "sdxl unet": _part("sdxl", "unet", "unet"),
    "lcm unet": _unet("lcm"),
    "everything unet": _unet("everything"),
    "sd controlnet": _controlnet(),
    "sdxl controlnet": _controlnet(with_time_ids=True),
    "controlnet without text": _controlnet(down_block_types=["DownBlock2D"] * 2, mid_block_type="UNetMidBlock2D"),
    "sd15 vae_encoder": _part("sd15", "vae_encoder", "vae"),
    "sd15 vae_decoder": _part("sd15", "vae_decoder", "vae"),
    "sd15 text_encoder": _part("sd15", "text_encoder", "text_encoder"),
    "sd2 text_encoder": _part("sd2", "text_encoder", "text_encoder"),
    "sdxl text_encoder_2": _part("sdxl", "text_encoder", "text_encoder_2"),
    "image_encoder": _vision("image_encoder"),
    "safety_checker": _vision("safety_checker"),
    "base image_projection": _image_projection("base"),
    "plus image_projection": _image_projection("plus"),
    "full image_projection": _image_projection("full"),
    "faceid image_projection": _image_projection("faceid"),
    "faceid_plus image_projection": _image_projection("faceid_plus"),
}

SMALL_UNET = "small unet"
# The tests of all NETWORKS do without these.
SMALL_UNETS = {
    SMALL_UNET: _small_unet(),
    "small sd2 unet": _small_unet(use_linear_projection=True),
    "small sdxl unet": _small_unet(
        use_linear_projection=True,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=40 + 6 * 8,
    ),
    "small lcm unet of inpainting": _small_unet(in_channels=9, time_cond_proj_dim=8),
}
ALL_NETWORKS = {**NETWORKS, **SMALL_UNETS}


def _parameter(name: str) -> Any:
    """A network as a test parameter. `everything unet` has all inputs of those that `make test` leaves out."""
    return pytest.param(name, marks=pytest.mark.verify) if name in ("sd2 unet", "sdxl unet", "lcm unet") else name


NAMES = [_parameter(name) for name in NETWORKS]
UNETS = [_parameter(name) for name in NETWORKS if name.endswith(" unet")]
