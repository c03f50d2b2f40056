"""The configuration values of the published checkpoints that shapes cannot give. Source: the configuration files of
stable-diffusion-v1-5, stable-diffusion-2-1-base, stable-diffusion-2-1 and stable-diffusion-xl-base-1.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.checkpoints.checkpoint import CheckpointKind

_SCHEDULE: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# The published files have these wrong ids. With eos 2, transformers pools at the highest id, which is the end token.
_CLIP: dict[str, Any] = {"model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
_CLIP_L = {**_CLIP, "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu"}
_OPEN_CLIP_H = {**_CLIP, "architectures": ["CLIPTextModel"], "hidden_act": "gelu"}
_OPEN_CLIP_G = {**_CLIP, "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu"}
_VAE: dict[str, Any] = {"act_fn": "silu", "norm_num_groups": 32}
_UNET: dict[str, Any] = {"act_fn": "silu", "norm_num_groups": 32}
END, EXCLAMATION = "<|endoftext|>", "!"


@dataclass(frozen=True)
class Family:
    """One family of published checkpoints.

    `head_width` is the width of an attention head of the UNet; None: 8 heads of any width. `text_layers` is the number
    of text encoder layers used at most; None: all. `pads` is the padding token of each tokenizer.
    """

    kind: CheckpointKind
    unet: dict[str, Any]
    head_width: int | None
    vae: dict[str, Any]
    text_encoders: tuple[dict[str, Any], ...]
    text_layers: int | None
    pads: tuple[str, ...]
    scheduler: dict[str, Any]


SD_1 = Family(
    kind="sd",
    unet={**_UNET, "sample_size": 64},
    head_width=None,
    vae={**_VAE, "scaling_factor": 0.18215},
    text_encoders=(_CLIP_L,),
    text_layers=None,
    pads=(END,),
    scheduler={"_class_name": "PNDMScheduler", **_SCHEDULE},
)
SD_2_BASE = Family(
    kind="sd",
    unet={**_UNET, "sample_size": 64},
    head_width=64,
    vae={**_VAE, "scaling_factor": 0.18215},
    text_encoders=(_OPEN_CLIP_H,),
    text_layers=23,
    pads=(EXCLAMATION,),
    scheduler={"_class_name": "PNDMScheduler", **_SCHEDULE},
)
SD_2_V = Family(
    kind="sd",
    unet={**_UNET, "sample_size": 96, "upcast_attention": True},
    head_width=64,
    vae={**_VAE, "scaling_factor": 0.18215},
    text_encoders=(_OPEN_CLIP_H,),
    text_layers=23,
    pads=(EXCLAMATION,),
    scheduler={"_class_name": "DDIMScheduler", **_SCHEDULE, "prediction_type": "v_prediction"},
)
SDXL = Family(
    kind="sdxl",
    unet={**_UNET, "sample_size": 128, "addition_embed_type": "text_time", "addition_time_embed_dim": 256},
    head_width=64,
    vae={**_VAE, "scaling_factor": 0.13025, "force_upcast": True},
    text_encoders=(_CLIP_L, _OPEN_CLIP_G),
    text_layers=None,
    pads=(END, EXCLAMATION),
    scheduler={"_class_name": "EulerDiscreteScheduler", **_SCHEDULE, "timestep_spacing": "leading"},
)
