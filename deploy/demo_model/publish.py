"""Write the trained model to commit: `python -m deploy.demo_model.publish checkpoint`, then each adapter."""

from __future__ import annotations

from typing import TypeVar

import torch
import typer
from diffusers import StableDiffusionPipeline

from deploy.demo_model.controlnet_training import write_controlnet
from deploy.demo_model.embedding_training import write_embedding
from deploy.demo_model.inversions import INVERSIONS
from deploy.demo_model.ip_adapter_training import write_ip_adapter
from deploy.demo_model.lessons import LESSONS
from deploy.demo_model.lora_training import write_lora
from deploy.demo_model.networks import make_scheduler
from deploy.demo_model.paths import CHECKPOINT, CONTROLNET, EMBEDDINGS, IP_ADAPTER, LORAS
from deploy.demo_model.tokenizer import make_tokenizer, save_tokenizer
from deploy.demo_model.trained import trained_denoiser, trained_vae

app = typer.Typer(add_completion=False, no_args_is_help=True)
M = TypeVar("M", bound=torch.nn.Module)


@app.command()
def checkpoint() -> None:
    """Write the averages of the runs `vae` and `unet` to `CHECKPOINT`, in float16, in values that bfloat16 has too.

    So a server computes with the same weights in either precision. (The networks were trained in bfloat16.)
    """
    vae, denoiser = trained_vae(), trained_denoiser()
    vae.register_to_config(scaling_factor=float(denoiser.scale))
    pipeline = StableDiffusionPipeline(
        vae=_in_both(vae),
        text_encoder=_in_both(denoiser.text_encoder),
        tokenizer=make_tokenizer(),
        unet=_in_both(denoiser.unet),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(CHECKPOINT)
    save_tokenizer(CHECKPOINT / "tokenizer")


def _in_both(network: M) -> M:
    return network.half().bfloat16().half()


@app.command()
def loras() -> None:
    """Write the averages of the LoRAs' runs to `LORAS`, in float16."""
    for lesson in LESSONS.values():
        write_lora(lesson, LORAS / f"{lesson.name}.safetensors")


@app.command()
def embeddings() -> None:
    """Write the averages of the textual inversions' runs to `EMBEDDINGS`, in float16."""
    for inversion in INVERSIONS.values():
        write_embedding(inversion, EMBEDDINGS / f"{inversion.name}.safetensors")


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
