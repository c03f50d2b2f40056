"""Write trained weights to `weights/`: `python -m deploy.demo_model.training.publish checkpoint`, then each adapter."""

from __future__ import annotations

from typing import TypeVar

import torch
import typer
from diffusers import StableDiffusionPipeline

from deploy.demo_model.paths import CHECKPOINT, CONTROLNET, EMBEDDINGS, IP_ADAPTER, LCM_LORA, LORAS
from deploy.demo_model.pipeline.components import make_scheduler
from deploy.demo_model.pipeline.tokenizer import make_tokenizer, save_tokenizer
from deploy.demo_model.training.controlnet import write_controlnet
from deploy.demo_model.training.embedding import write_embedding
from deploy.demo_model.training.ip_adapter import write_ip_adapter
from deploy.demo_model.training.lcm_lora import write_lcm_lora
from deploy.demo_model.training.lora import write_lora
from deploy.demo_model.training.trained_networks import trained_denoiser, trained_vae
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS
from deploy.demo_model.world.lora_specs import LORA_SPECS

app = typer.Typer(add_completion=False, no_args_is_help=True)
M = TypeVar("M", bound=torch.nn.Module)


@app.command()
def checkpoint() -> None:
    """Write the averages of the runs `vae` and `unet` to `CHECKPOINT`, in float16, rounded to bfloat16.

    So float32, float16 and bfloat16 servers compute with equal weights. The networks are trained in bfloat16.
    """
    vae, denoiser = trained_vae(), trained_denoiser()
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    pipeline = StableDiffusionPipeline(
        vae=_rounded_to_bfloat16(vae),
        text_encoder=_rounded_to_bfloat16(denoiser.text_encoder),
        tokenizer=make_tokenizer(),
        unet=_rounded_to_bfloat16(denoiser.unet),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(CHECKPOINT)
    save_tokenizer(CHECKPOINT / "tokenizer")


def _rounded_to_bfloat16(network: M) -> M:
    return network.half().bfloat16().half()


@app.command()
def loras() -> None:
    """Write the averages of the LoRAs' runs to `LORAS`, in float16."""
    for spec in LORA_SPECS.values():
        write_lora(spec, LORAS / f"{spec.name}.safetensors")


@app.command()
def lcm_lora() -> None:
    """Write the average of the LCM-LoRA's run to `LCM_LORA`, in float16."""
    write_lcm_lora(LCM_LORA)


@app.command()
def embeddings() -> None:
    """Write the averages of the textual inversions' runs to `EMBEDDINGS`, in float16."""
    for spec in EMBEDDING_SPECS.values():
        write_embedding(spec, EMBEDDINGS / f"{spec.name}.safetensors")


@app.command()
def controlnet() -> None:
    """Write the average of the run `controlnet` to `CONTROLNET`, in float16."""
    write_controlnet(CONTROLNET)


@app.command()
def ip_adapter() -> None:
    """Write the averages of the runs `image-encoder` and `ip-adapter` to `IP_ADAPTER`, in float16."""
    write_ip_adapter(IP_ADAPTER)


if __name__ == "__main__":
    app()
