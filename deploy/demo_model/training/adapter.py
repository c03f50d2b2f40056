"""A new LoRA on the trained, frozen UNet, and the file of a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.loop import device
from deploy.demo_model.training.trained_networks import trained_denoiser

KeyFormat = Literal["diffusers", "kohya"]


def with_adapter(rank: int, layers: Sequence[str]) -> Denoiser:
    """The trained denoiser on the training device, frozen, with a new trainable LoRA on `layers`, alpha = `rank`."""
    denoiser = trained_denoiser().requires_grad_(False)
    denoiser.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)))
    return denoiser.to(device())


def write_adapter(denoiser: Denoiser, path: Path, key_format: KeyFormat) -> None:
    """Write the LoRA of a denoiser of `with_adapter` in float16."""
    tensors = {f"unet.{name}": tensor for name, tensor in get_peft_model_state_dict(denoiser.unet).items()}
    if key_format == "kohya":
        tensors = convert_state_dict_to_kohya(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
