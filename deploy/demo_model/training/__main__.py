"""Train a part of the demo model: `python -m deploy.demo_model.training vae --minutes 60`. A later call resumes."""

from __future__ import annotations

import torch
import typer

from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.controlnet import train_controlnet
from deploy.demo_model.training.embedding import train_embedding
from deploy.demo_model.training.image_encoder import train_image_encoder
from deploy.demo_model.training.ip_adapter import train_ip_adapter
from deploy.demo_model.training.lcm_lora import train_lcm_lora
from deploy.demo_model.training.lora import train_lora
from deploy.demo_model.training.unet import train_unet
from deploy.demo_model.training.vae import train_decoder, train_vae

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def main(threads: int = typer.Option(2, help="CPU threads; 1 is faster than 2 when other programs run.")) -> None:
    """Train one network up to a total of minutes, earlier sessions included; the state is saved every four minutes."""
    torch.set_num_threads(threads)
    data_parallel.initialize()


@app.command()
def vae(minutes: float = 60.0, peak_rate: float = 1.5e-3) -> None:
    """Train the autoencoder."""
    train_vae(minutes, peak_rate)


@app.command()
def decoder(minutes: float = 60.0, peak_rate: float = 1e-3) -> None:
    """Train only the autoencoder's decoder; the latents, and so the UNet, stay valid."""
    train_decoder(minutes, peak_rate)


@app.command()
def unet(minutes: float = 100.0, peak_rate: float = 1.5e-3, scenes: int = 20000, afresh: bool = False) -> None:
    """Train the UNet and the text encoder on SCENES scenes. Train the autoencoder first; do not retrain it later."""
    train_unet(minutes, peak_rate, scenes, afresh)


@app.command()
def lora(name: str, minutes: float = 6.0, peak_rate: float = 1e-3) -> None:
    """Train the LoRA NAME: sepia, halftone or lorikeet. Train the UNet first; do not retrain it later."""
    train_lora(name, minutes, peak_rate)


@app.command()
def lcm_lora(minutes: float = 30.0, session: float = 30.0, peak_rate: float = 1e-3, scenes: int = 20000) -> None:
    """Train the LCM-LoRA on SCENES scenes, for SESSION minutes now. Train the UNet first; do not retrain it later."""
    train_lcm_lora(minutes, session, peak_rate, scenes)


@app.command()
def embedding(name: str, minutes: float = 5.0, peak_rate: float = 5e-3) -> None:
    """Train the textual inversion NAME: keepsake. Train the UNet first; do not retrain it later."""
    train_embedding(name, minutes, peak_rate)


@app.command()
def controlnet(minutes: float = 30.0, peak_rate: float = 1.5e-3, scenes: int = 20000) -> None:
    """Train the ControlNet on SCENES scenes. Train the UNet first; do not retrain it later."""
    train_controlnet(minutes, peak_rate, scenes)


@app.command()
def image_encoder(minutes: float = 40.0, peak_rate: float = 1e-3) -> None:
    """Train the IP-Adapter's image encoder; it depends on no other network."""
    train_image_encoder(minutes, peak_rate)


@app.command()
def ip_adapter(minutes: float = 20.0, peak_rate: float = 1e-3, scenes: int = 20000) -> None:
    """Train the IP-Adapter on SCENES scenes. Train the UNet and the image encoder first; do not retrain them."""
    train_ip_adapter(minutes, peak_rate, scenes)


if __name__ == "__main__":
    app()
