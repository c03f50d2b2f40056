"""Train a part of the demo model: `python -m deploy.demo_model.training vae --minutes 60`. Goes on where it stopped."""

from __future__ import annotations

import torch
import typer

from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.controlnet import train_controlnet
from deploy.demo_model.training.embedding import train_embedding
from deploy.demo_model.training.image_encoder import train_image_encoder
from deploy.demo_model.training.ip_adapter import train_ip_adapter
from deploy.demo_model.training.lora import train_lora
from deploy.demo_model.training.unet import train_unet
from deploy.demo_model.training.vae import train_decoder, train_vae

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def main(threads: int = typer.Option(2, help="CPU threads; where other work runs beside, 1 is faster than 2.")) -> None:
    """Each command trains up to a total of minutes, earlier sessions included, and saves as it goes."""
    torch.set_num_threads(threads)
    data_parallel.join()


@app.command()
def vae(minutes: float = 60.0, peak_rate: float = 1.5e-3) -> None:
    """Train the autoencoder."""
    train_vae(minutes, peak_rate)


@app.command()
def decoder(minutes: float = 60.0, peak_rate: float = 1e-3) -> None:
    """Train the autoencoder's decoder alone, which may go on beside the UNet and after it."""
    train_decoder(minutes, peak_rate)


@app.command()
def unet(minutes: float = 100.0, peak_rate: float = 1.5e-3, pool: int = 20000, afresh: bool = False) -> None:
    """Train the UNet and the text encoder on `pool` scenes; the autoencoder must be trained, and then stay as it is."""
    train_unet(minutes, peak_rate, pool, afresh)


@app.command()
def lora(name: str, minutes: float = 6.0, peak_rate: float = 1e-3) -> None:
    """Train the LoRA NAME: sepia, halftone or lorikeet. The UNet must be trained, and then stay as it is."""
    train_lora(name, minutes, peak_rate)


@app.command()
def embedding(name: str, minutes: float = 5.0, peak_rate: float = 5e-3) -> None:
    """Train the textual inversion NAME: keepsake. The UNet must be trained, and then stay as it is."""
    train_embedding(name, minutes, peak_rate)


@app.command()
def controlnet(minutes: float = 30.0, peak_rate: float = 1.5e-3, pool: int = 20000) -> None:
    """Train the ControlNet on `pool` scenes. The UNet must be trained, and then stay as it is."""
    train_controlnet(minutes, peak_rate, pool)


@app.command()
def image_encoder(minutes: float = 40.0, peak_rate: float = 1e-3) -> None:
    """Train the IP-Adapter's image encoder; it needs no other network."""
    train_image_encoder(minutes, peak_rate)


@app.command()
def ip_adapter(minutes: float = 20.0, peak_rate: float = 1e-3, pool: int = 20000) -> None:
    """Train the IP-Adapter on `pool` scenes. UNet and image encoder must be trained, and then stay as they are."""
    train_ip_adapter(minutes, peak_rate, pool)


if __name__ == "__main__":
    app()
