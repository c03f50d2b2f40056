"""Checks the untrusted configuration of a network before a library builds the network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from lorikeet.schema import describe_errors
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.clip_vocabulary import VOCABULARY_SIZE

_Flag = bool | None
_Width = Annotated[int, Field(ge=1, le=1 << 20)]
# Together these bound the time in which the network is built: 0.5 s for SDXL, some seconds at most.
_Layers = Annotated[int, Field(ge=1, le=6)]
_Depth = Annotated[int, Field(ge=0, le=16)]
_Levels = Field(min_length=1, max_length=6)
_Factor = Annotated[float, Field(gt=0, le=1000)]
_Epsilon = Annotated[float, Field(gt=0, lt=1)]
_Down = Literal["CrossAttnDownBlock2D", "DownBlock2D"]
_Up = Literal["CrossAttnUpBlock2D", "UpBlock2D"]
_Mid = Literal["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"]


class _Config(BaseModel):
    """Unknown fields are ignored, as the libraries ignore them."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Denoising(_Config):
    """What a UNet and its ControlNets have alike."""

    attention_head_dim: _Width | Annotated[list[_Width], _Levels] = 8
    num_attention_heads: _Width | Annotated[list[_Width], _Levels] | None = None
    use_linear_projection: _Flag = None
    upcast_attention: _Flag = None
    only_cross_attention: _Flag | Annotated[list[bool], _Levels] = None
    norm_num_groups: _Width = 32
    norm_eps: _Epsilon = 1e-5
    act_fn: Literal["silu", "swish"] = "silu"
    downsample_padding: int = Field(default=1, ge=0, le=1)
    mid_block_scale_factor: _Factor = 1.0
    resnet_time_scale_shift: Literal["default"] = "default"
    flip_sin_to_cos: _Flag = None
    freq_shift: int = Field(default=0, ge=0, le=1)
    addition_embed_type: Literal["text_time"] | None = None
    addition_time_embed_dim: _Width | None = None
    projection_class_embeddings_input_dim: _Width | None = None
    class_embed_type: None = None
    num_class_embeds: None = None
    encoder_hid_dim: None = None
    encoder_hid_dim_type: None = None


class _UNet(_Denoising):
    """A UNet2DConditionModel of Stable Diffusion. Options of other models must have their defaults."""

    sample_size: _Width | Annotated[list[_Width], Field(min_length=2, max_length=2)] | None = None
    in_channels: _Width = 4
    out_channels: Literal[4] = 4
    block_out_channels: Annotated[list[_Width], _Levels] = [320]
    down_block_types: Annotated[list[_Down], _Levels] = ["DownBlock2D"]
    mid_block_type: _Mid | None = None
    up_block_types: Annotated[list[_Up], _Levels] = ["UpBlock2D"]
    layers_per_block: _Layers | Annotated[list[_Layers], _Levels] = 2
    transformer_layers_per_block: _Depth | Annotated[list[_Depth | Annotated[list[_Depth], _Levels]], _Levels] = 1
    reverse_transformer_layers_per_block: Annotated[list[_Depth | Annotated[list[_Depth], _Levels]], _Levels] | None = (
        None
    )
    cross_attention_dim: _Width | Annotated[list[_Width], _Levels] = 1280
    mid_block_only_cross_attention: _Flag = None
    dropout: float = Field(default=0.0, ge=0, le=1)
    resnet_out_scale_factor: _Factor = 1.0
    resnet_skip_time_act: _Flag = None
    conv_in_kernel: Literal[3] = 3
    conv_out_kernel: Literal[3] = 3
    center_input_sample: _Flag = None
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: _Width | None = None
    time_cond_proj_dim: Annotated[int, Field(ge=4, le=1 << 20)] | None = None
    time_embedding_act_fn: None = None
    timestep_post_act: None = None
    attention_type: Literal["default"] = "default"
    cross_attention_norm: None = None
    dual_cross_attention: Literal[False] | None = None


class _ControlNet(_Denoising):
    """A ControlNetModel of Stable Diffusion. Options of other models must have their defaults."""

    in_channels: Literal[4] = 4
    conditioning_channels: Literal[3] = 3
    block_out_channels: Annotated[list[_Width], _Levels] = [320, 640, 1280, 1280]
    down_block_types: Annotated[list[_Down], _Levels] = [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ]
    mid_block_type: _Mid | None = "UNetMidBlock2DCrossAttn"
    layers_per_block: _Layers = 2
    transformer_layers_per_block: _Depth | Annotated[list[_Depth], _Levels] = 1
    cross_attention_dim: _Width = 1280
    conditioning_embedding_out_channels: Annotated[list[_Width], Field(min_length=2, max_length=8)] = [16, 32, 96, 256]
    controlnet_conditioning_channel_order: Literal["rgb", "bgr"] = "rgb"
    global_pool_conditions: _Flag = None


class _Vae(_Config):
    """An AutoencoderKL of Stable Diffusion."""

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: _Width = 4
    block_out_channels: Annotated[list[_Width], _Levels]
    down_block_types: Annotated[list[Literal["DownEncoderBlock2D"]], _Levels] = ["DownEncoderBlock2D"]
    up_block_types: Annotated[list[Literal["UpDecoderBlock2D"]], _Levels] = ["UpDecoderBlock2D"]
    layers_per_block: _Layers = 1
    norm_num_groups: _Width = 32
    act_fn: Literal["silu", "swish"] = "silu"
    scaling_factor: _Factor = 0.18215
    shift_factor: None = None
    force_upcast: _Flag = None
    use_quant_conv: _Flag = None
    use_post_quant_conv: _Flag = None
    mid_block_add_attention: _Flag = None

    @model_validator(mode="after")
    def _one_block_a_level(self) -> Self:
        """Pixels per latent are counted by levels, and each block but the last halves the picture."""
        levels = len(self.block_out_channels)
        for name, blocks in (("down_block_types", self.down_block_types), ("up_block_types", self.up_block_types)):
            if len(blocks) != levels:
                raise ValueError(f"{name}: expected {levels} entries, one for each of block_out_channels")
        return self


class _TextEncoder(_Config):
    """A CLIPTextModel or a CLIPTextModelWithProjection."""

    vocab_size: _Width = VOCABULARY_SIZE
    hidden_size: _Width = 512
    intermediate_size: _Width = 2048
    projection_dim: _Width = 512
    num_hidden_layers: int = Field(default=12, ge=1, le=100)
    num_attention_heads: _Width = 8
    max_position_embeddings: int = Field(default=MAX_TOKENS, ge=MAX_TOKENS, le=1 << 16)
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: _Epsilon = 1e-5
    attention_dropout: float = Field(default=0.0, ge=0, le=1)
    eos_token_id: int = 49407


class _ImageEncoder(_Config):
    """A CLIPVisionModelWithProjection."""

    hidden_size: _Width = 768
    intermediate_size: _Width = 3072
    projection_dim: _Width = 512
    num_hidden_layers: int = Field(default=12, ge=2, le=100)
    num_attention_heads: _Width = 12
    num_channels: Literal[3] = 3
    image_size: int = Field(default=224, ge=1, le=1024)
    patch_size: int = Field(default=32, ge=1, le=1024)
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: _Epsilon = 1e-5
    attention_dropout: float = Field(default=0.0, ge=0, le=1)


# Diffusers' pipelines apply these in place of scaling_factor.
_NORMALIZATION = ("latents_mean", "latents_std")
_CONFIGS: dict[str, type[_Config]] = {
    "unet": _UNet,
    "controlnet": _ControlNet,
    "vae": _Vae,
    "text_encoder": _TextEncoder,
    "text_encoder_2": _TextEncoder,
    "image_encoder": _ImageEncoder,
    "safety_checker": _ImageEncoder,
}


def check_config(name: str, config: dict[str, Any]) -> None:
    """Raises CheckpointError naming the fields that do not fit Stable Diffusion or exceed the bounds above."""
    if name == "vae" and (found := [field for field in _NORMALIZATION if config.get(field) is not None]):
        raise CheckpointError(
            f"its vae normalizes its latents ({' and '.join(found)} in its configuration), as those of models like "
            "Playground v2.5 do, which is not supported: use a checkpoint with the VAE of SD or SDXL"
        )
    try:
        _CONFIGS[name].model_validate(config)
    except ValidationError as error:
        raise CheckpointError(f"the configuration of its {name} is invalid: {describe_errors(error)}") from error
