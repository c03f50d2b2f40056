"""Architectures: an engine is compiled for one. Importing this needs neither torch nor diffusers.

The canonical configuration holds every value that affects the network, with the defaults below filled in. Its digest
names the exported artifacts. The defaults do not come from the installed libraries, because a newer diffusers must
find the artifacts of an older one. A test compares the tables with diffusers and transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

NetworkKind = Literal[
    "unet",
    "controlnet",
    "vae_encoder",
    "vae_decoder",
    "text_encoder",
    "image_encoder",
    "image_projection",
    "safety_checker",
]

# Defaults of diffusers' UNet2DConditionModel, without the options that do not affect the network.
_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}
# Defaults of diffusers' ControlNetModel: the options that it shares with the UNet, then the others.
_CONTROLNET: dict[str, Any] = {
    **{
        name: _UNET[name]
        for name in (
            "in_channels",
            "flip_sin_to_cos",
            "freq_shift",
            "down_block_types",
            "mid_block_type",
            "only_cross_attention",
            "block_out_channels",
            "layers_per_block",
            "downsample_padding",
            "mid_block_scale_factor",
            "act_fn",
            "norm_num_groups",
            "norm_eps",
            "cross_attention_dim",
            "transformer_layers_per_block",
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "attention_head_dim",
            "num_attention_heads",
            "use_linear_projection",
            "class_embed_type",
            "addition_embed_type",
            "addition_time_embed_dim",
            "num_class_embeds",
            "upcast_attention",
            "resnet_time_scale_shift",
            "projection_class_embeddings_input_dim",
            "addition_embed_type_num_heads",
        )
    },
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "global_pool_conditions": False,
}
# Defaults of diffusers' AutoencoderKL.
_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
# Defaults of transformers' CLIPTextConfig.
_TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "eos_token_id": 49407,
}
# Defaults of transformers' CLIPVisionConfig.
_IMAGE_ENCODER: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}
# An IP-Adapter has no published configuration: these values are read from the shapes of its tensors.
# projection: a `ProjectionKind`. tokens: of one picture (`full`: as many as the image encoder has). inner_widths: of
# each cross-attention layer of the UNet. face_…: of the layers that take a face's embedding. The others are those of
# the resampler of `plus` and `faceid_plus`.
_IMAGE_PROJECTION: dict[str, Any] = {
    "projection": "base",
    "image_embed_dim": 1024,
    "cross_attention_dim": 768,
    "tokens": 4,
    "inner_widths": [],
    "face_embed_dim": 512,
    "face_ffn_ratio": 2.0,
    "hidden_dims": 768,
    "depth": 4,
    "heads": 12,
    "ffn_ratio": 4.0,
}
DEFAULTS: Mapping[NetworkKind, Mapping[str, Any]] = {
    "unet": _UNET,
    "controlnet": _CONTROLNET,
    "vae_encoder": _VAE,
    "vae_decoder": _VAE,
    "text_encoder": _TEXT_ENCODER,
    "image_encoder": _IMAGE_ENCODER,
    "image_projection": _IMAGE_PROJECTION,
    "safety_checker": _IMAGE_ENCODER,
}
# diffusers treats one number as a list with that number for each level. ControlNetModel has fewer such options.
_CONTROLNET_BY_LEVEL = ("attention_head_dim", "num_attention_heads", "transformer_layers_per_block")
_BY_LEVEL: Mapping[NetworkKind, tuple[str, ...]] = {
    "unet": (*_CONTROLNET_BY_LEVEL, "cross_attention_dim", "layers_per_block"),
    "controlnet": _CONTROLNET_BY_LEVEL,
}
_PROJECTION = "with_projection"


class ArchitectureError(ValueError):
    """The configuration does not describe a network of this kind. The message is for the client."""


@dataclass(frozen=True)
class Architecture:
    """The kind of network and its canonical configuration as JSON. Equal networks have equal architectures."""

    kind: NetworkKind
    config: str

    @property
    def options(self) -> dict[str, Any]:
        """The configuration in the form that diffusers and transformers accept."""
        options: dict[str, Any] = json.loads(self.config)
        options.pop(_PROJECTION, None)
        return options

    @property
    def with_projection(self) -> bool:
        """Whether a text encoder projects its pooled embedding."""
        return bool(json.loads(self.config).get(_PROJECTION))

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.kind}:{self.config}".encode()).hexdigest()


def architecture_of(kind: NetworkKind, config: Mapping[str, Any]) -> Architecture:
    """The architecture of a component's configuration. A missing option has its default.

    Raises ArchitectureError when a value has the wrong type.
    """
    canonical = {name: config.get(name, default) for name, default in DEFAULTS[kind].items()}
    if kind == "text_encoder":
        canonical[_PROJECTION] = "CLIPTextModelWithProjection" in (config.get("architectures") or [])
    try:
        if by_level := _BY_LEVEL.get(kind):
            levels = len(canonical["down_block_types"])
            canonical |= {name: [canonical[name]] * levels for name in by_level if isinstance(canonical[name], int)}
        return Architecture(kind, json.dumps(canonical, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise ArchitectureError(f"its configuration describes no {kind} ({error})") from error
