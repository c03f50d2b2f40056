"""Single files of the published checkpoints' sizes: their shapes alone tell the published configurations.

The files have the headers of the genuine ones and nothing behind them: a hole that takes no room on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.single_file import read_single_file
from runtime.files.located import SingleFile
from runtime.files.stored_file import StoredFile
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.networks.build import build, parameters
from tests.tiny.original import original

CROSS = "CrossAttnDownBlock2D"
UP = "CrossAttnUpBlock2D"
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
    "sd2": {
        "sample_size": 64,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "sdxl": {
        "sample_size": 128,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", CROSS, CROSS],
        "up_block_types": [UP, UP, "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
UNETS |= {  # distilled from SDXL
    "ssd-1b": UNETS["sdxl"]
    | {
        "transformer_layers_per_block": [1, 2, 4],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    "segmind-vega": UNETS["sdxl"] | {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"},
    "koala-700m": UNETS["sdxl"]
    | {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1, "mid_block_type": None},
}
XL = tuple(name for name, config in UNETS.items() if "addition_embed_type" in config)
TEXTS: dict[str, list[dict[str, Any]]] = {
    "sd15": [CLIP_L],
    "sd2": [OPEN_CLIP_H],
    **{name: [CLIP_L, OPEN_CLIP_G] for name in XL},
}
PLACES = {
    "sd15": ["cond_stage_model.transformer"],
    "sd2": ["cond_stage_model.model"],
    **{name: ["conditioner.embedders.0.transformer", "conditioner.embedders.1.model"] for name in XL},
}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
ENDS = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


def _networks(family: str) -> dict[str, torch.nn.Module]:
    """The published networks, without memory."""
    with torch.device("meta"):
        found = {"unet": UNet2DConditionModel(**UNETS[family]), "vae": AutoencoderKL(**VAE, **ENDS, latent_channels=4)}
        classes = (CLIPTextModel, CLIPTextModelWithProjection)
        for name, cls, config in zip(("text_encoder", "text_encoder_2"), classes, TEXTS[family], strict=False):
            found[name] = cls(CLIPTextConfig(**config))
    return found


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A file of these tensors in float16, of which only the header is there."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(params=UNETS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(family: str, tmp_path: Path) -> Iterator[Checkpoint]:
    parts = {name: dict(network.state_dict()) for name, network in _networks(family).items()}
    path = tmp_path / f"{family}.safetensors"
    _write(path, original(parts, dict(zip(list(parts)[2:], PLACES[family], strict=True))))
    yield read_single_file(SingleFile(StoredFile(path, "0" * 64)))
    path.unlink()


def test_the_published_configuration_is_told(checkpoint: Checkpoint, family: str) -> None:
    expected = UNETS[family]
    assert {name: checkpoint.unet.config[name] for name in expected} == expected
    assert {name: checkpoint.vae.config[name] for name in VAE} == VAE
    for encoder, config in zip(checkpoint.text_encoders, TEXTS[family], strict=True):
        assert {name: encoder.config[name] for name in config} == config
    assert checkpoint.kind == ("sdxl" if family in XL else "sd")
    assert (checkpoint.native_size, checkpoint.vae_scale_factor) == (1024 if family in XL else 512, 8)
    assert [tokenizer.pad_token for tokenizer in checkpoint.tokenizers] == {
        "sd15": ["<|endoftext|>"],
        "sd2": ["!"],
    }.get(family, ["<|endoftext|>", "!"])


def test_the_networks_that_are_built_have_a_place_for_every_tensor(checkpoint: Checkpoint) -> None:
    kinds: list[NetworkKind] = ["unet", "text_encoder", "text_encoder"]
    for kind, component in zip(kinds, checkpoint.adaptable, strict=False):
        places = parameters(build(architecture_of(kind, component.config)))
        assert {name: tuple(shape) for name, (_, _, shape) in places.items()} == component.shapes
    halves: list[NetworkKind] = ["vae_encoder", "vae_decoder"]
    shapes: dict[str, tuple[int, ...]] = {}
    for kind in halves:
        places = parameters(build(architecture_of(kind, checkpoint.vae.config)))
        shapes |= {name: tuple(shape) for name, (_, _, shape) in places.items()}
    assert shapes == checkpoint.vae.shapes


def test_the_heads_are_those_of_the_published_unet(checkpoint: Checkpoint, family: str) -> None:
    """No shape shows them."""
    found = build(architecture_of("unet", checkpoint.unet.config)).weights
    expected = dict(_networks(family)["unet"].named_modules())
    heads = {name: module.heads for name, module in found.named_modules() if hasattr(module, "heads")}
    assert heads == {name: module.heads for name, module in expected.items() if hasattr(module, "heads")}
    assert heads
