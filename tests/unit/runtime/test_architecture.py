"""Architectures: their table of defaults equals the libraries', and their digests stay as they are."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPVisionConfig

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.networks.architecture import DEFAULTS, ArchitectureError, NetworkKind, architecture_of

CLASSES: dict[NetworkKind, Any] = {
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "vae_encoder": AutoencoderKL,
    "vae_decoder": AutoencoderKL,
    "text_encoder": CLIPTextConfig,
    "image_encoder": CLIPVisionConfig,
}
_LATENT_SCALING = {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}  # applied outside of the network
_TRAINING = {"initializer_range", "initializer_factor", "problem_type", "id2label", "label2id"}
_BOOKKEEPING = {
    "transformers_version",
    "architectures",
    "dtype",
}  # what wrote the file; `with_projection` is of its own
_CALL = {"return_dict", "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder"}  # how it is called
_TOKENIZING = {"pad_token_id", "bos_token_id"}
NO_DIFFERENCE: dict[NetworkKind, set[str]] = {
    "unet": {"sample_size"},  # the size it was trained at
    "controlnet": set(),
    "vae_encoder": {"sample_size"} | _LATENT_SCALING,
    "vae_decoder": {"sample_size"} | _LATENT_SCALING,
    "text_encoder": _TRAINING | _BOOKKEEPING | _CALL | _TOKENIZING,
    "image_encoder": _TRAINING | _BOOKKEEPING | _CALL,
}
# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5, unet/config.json
SD15_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}


def _defaults(kind: NetworkKind) -> dict[str, Any]:
    parameters = inspect.signature(CLASSES[kind]).parameters.values()
    named = {one.name: one.default for one in parameters if one.kind is not one.VAR_KEYWORD}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_table_equals_the_signatures_of_the_libraries(kind: NetworkKind) -> None:
    found = _defaults(kind)
    assert found.keys() - DEFAULTS[kind].keys() == NO_DIFFERENCE[kind]
    assert {name: found[name] for name in DEFAULTS[kind]} == DEFAULTS[kind]


def test_importing_the_architecture_imports_no_library() -> None:
    code = (
        "import sys, runtime.networks.architecture; print({'torch', 'diffusers', 'transformers'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_digest_of_a_published_unet_stays() -> None:
    """Exported artifacts bear this digest: a change of the canonical form orphans them all."""
    found = architecture_of("unet", SD15_UNET)
    assert found.digest == "253f6705700672732b8b257b6cafccc67e81022f200557ba4241d21dca1856d4"


def test_what_makes_no_difference_makes_no_other_architecture(sd15: Checkpoint) -> None:
    unet = architecture_of("unet", sd15.unet.config)
    origin = {"_name_or_path": "elsewhere", "_diffusers_version": "0.1.0"}
    spelled_out = {"sample_size": 8, "center_input_sample": False}
    assert architecture_of("unet", sd15.unet.config | origin | spelled_out) == unet
    assert architecture_of("unet", sd15.unet.config | {"norm_eps": 1e-3}) != unet


@pytest.mark.parametrize("name", ["attention_head_dim", "layers_per_block", "cross_attention_dim"])
def test_one_number_equals_one_for_each_level(name: str) -> None:
    by_level = SD15_UNET | {name: [SD15_UNET[name]] * 4}
    assert architecture_of("unet", by_level) == architecture_of("unet", SD15_UNET)


def test_the_kind_and_the_projection_make_a_difference(sd15: Checkpoint) -> None:
    encoder, decoder = (architecture_of(kind, sd15.vae.config) for kind in ("vae_encoder", "vae_decoder"))
    assert encoder.digest != decoder.digest
    text = sd15.text_encoders[0].config
    one, other = (
        architecture_of("text_encoder", text | {"architectures": [name]})
        for name in ("CLIPTextModel", "CLIPTextModelWithProjection")
    )
    assert not one.with_projection and other.with_projection
    assert one.digest != other.digest and one.options == other.options


@pytest.mark.parametrize("changes", [{"down_block_types": 4}, {"norm_eps": {1}}])
def test_a_value_that_no_architecture_has_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError, match="its configuration describes no unet"):
        architecture_of("unet", SD15_UNET | changes)
