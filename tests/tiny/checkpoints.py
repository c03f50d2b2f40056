"""Whole checkpoints as diffusers lays them out."""

import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import __version__ as diffusers_version

from tests.tiny import schedulers
from tests.tiny.original import write_original, write_prefixed, write_sidecar
from tests.tiny.schedulers import write_scheduler
from tests.tiny.text_encoders import write_text_encoder, write_text_encoder_2, write_text_encoder_h
from tests.tiny.tokenizer import END, write_tokenizer
from tests.tiny.unets import EVERYTHING, LCM, SD2, SD15, SDXL, TRUST_IN_V, write_unet
from tests.tiny.vae import rename_attention, write_vae


def write_sd15(folder: Path) -> None:
    """SD 1.5: PNDM, one text encoder, convolutions as projections of its transformers."""
    write_unet(folder / "unet", 11, SD15)
    write_vae(folder / "vae", 12, scaling_factor=0.18215, force_upcast=True)
    write_text_encoder(folder / "text_encoder", 13)
    write_tokenizer(folder / "tokenizer", pad=END)
    write_scheduler(folder / "scheduler", schedulers.SD15)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_index(folder, index)


def write_sd15_oldnames(folder: Path, sd15: Path) -> None:
    """The checkpoint at `sd15`, its VAE's attention under the names that the published SD 1.5 uses."""
    shutil.copytree(sd15, folder)
    rename_attention(folder / "vae")


def write_sd2(folder: Path) -> None:
    """SD 2.1: DDIM, v-prediction, OpenCLIP's text encoder, linear layers as projections of its transformers."""
    write_unet(folder / "unet", 51, SD2, TRUST_IN_V)
    write_vae(folder / "vae", 52, scaling_factor=0.18215, force_upcast=True)
    write_text_encoder_h(folder / "text_encoder", 53)
    write_tokenizer(folder / "tokenizer", pad="!")
    write_scheduler(folder / "scheduler", schedulers.SD2)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_index(folder, index)


def write_sdxl(folder: Path) -> None:
    """SDXL base: Euler, two text encoders, the second tokenizer padding with "!"."""
    write_unet(folder / "unet", 21, SDXL)
    write_vae(folder / "vae", 22, scaling_factor=0.13025, force_upcast=True)
    write_text_encoder(folder / "text_encoder", 23)
    write_text_encoder_2(folder / "text_encoder_2", 24)
    write_tokenizer(folder / "tokenizer", pad=END)
    write_tokenizer(folder / "tokenizer_2", pad="!")
    write_scheduler(folder / "scheduler", schedulers.SDXL)
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_index(folder, index)


def write_lcm(folder: Path) -> None:
    """A UNet alone, of SD 1.5 and distilled with guidance."""
    write_unet(folder / "unet", 61, LCM)


def write_single_files(folder: Path, sd15: Path, sd2: Path, sdxl: Path) -> None:
    """The three checkpoints as one file each in the original layout, and SD 1.5 under diffusers' names."""
    clip, open_clip = "cond_stage_model.transformer", "cond_stage_model.model"
    two = {"text_encoder": "conditioner.embedders.0.transformer", "text_encoder_2": "conditioner.embedders.1.model"}
    write_original(folder / "sd15.safetensors", sd15, {"text_encoder": clip})
    write_original(folder / "sd2.safetensors", sd2, {"text_encoder": open_clip})
    write_original(folder / "sdxl.safetensors", sdxl, two)
    write_prefixed(folder / "sd15-diffusers.safetensors", sd15, ("unet", "vae", "text_encoder"))
    for name, source in (("sd15", sd15), ("sd2", sd2), ("sd15-diffusers", sd15)):
        write_sidecar(folder / f"{name}.safetensors", source, ("tokenizer",))
    write_sidecar(folder / "sdxl.safetensors", sdxl, ("tokenizer", "tokenizer_2"))


def write_everything(folder: Path) -> None:
    """A UNet alone that takes every input: concatenated latents, `timestep_cond`, SDXL's additions."""
    write_unet(folder / "unet", 31, EVERYTHING)


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    content = {"_diffusers_version": diffusers_version, **index}
    (folder / "model_index.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
