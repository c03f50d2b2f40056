"""The pipeline components of the demo model: SD 1.x classes at a size that trains on two cores."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
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
    """An untrained UNet: latents [n, 4, 16, 16] and text [n, 77, TEXT_WIDTH] to v."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        # The finest level forms the outlines; with 64 channels they were blurred.
        block_out_channels=(128, 128, 128),
        # Attention at the finest level would double the time of a step.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # diffusers uses this as the number of heads
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
    """The noise schedule of SD 1.x, with v-prediction.

    The prompt decides most at strong noise. There, an error in predicted noise is five times larger in the picture."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_lcm_scheduler() -> LCMScheduler:
    """The scheduler for the LCM-LoRA, with the same noise schedule."""
    scheduler: LCMScheduler = LCMScheduler.from_config(make_scheduler().config)
    return scheduler
