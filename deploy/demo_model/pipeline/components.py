"""The networks of the demo model: the classes and the layout of SD 1.x, at a size that trains on two cores."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from deploy.demo_model.pipeline.tokenizer import MAX_TOKENS, token_ids
from deploy.demo_model.world.canvas import SIDE

TEXT_WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SIDE = SIDE // 8


def make_vae() -> AutoencoderKL:
    """An untrained autoencoder: pixels [n, 3, 128, 128] in [-1, 1] to latents [n, 4, 16, 16]."""
    widths = (32, 32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def make_unet() -> UNet2DConditionModel:
    """An untrained UNet: latents [n, 4, 16, 16] and text [n, 77, TEXT_WIDTH] to noise."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        # As wide at the finest level as below it: outlines are made there, and 64 channels blurred them.
        block_out_channels=(128, 128, 128),
        # No attention at the finest level: it would take half of the time.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # the number of heads, in spite of its name
    )


def make_text_encoder() -> CLIPTextModel:
    """An untrained text encoder: tokens [n, 77] to states [n, 77, TEXT_WIDTH]."""
    ids = token_ids()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(ids.vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=ids.start,
            pad_token_id=ids.end,
            eos_token_id=ids.end,
        )
    )


def make_scheduler() -> DDIMScheduler:
    """SD's schedule of noise. The UNet predicts v, not the noise: where noise is strong, an error in the noise
    is five times as large an error in the picture, and that is where a prompt decides."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
