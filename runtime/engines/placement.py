"""The device and the precision of the networks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.cpu import has_bfloat16
from runtime.networks.architecture import Architecture
from runtime.settings import Settings, SettingsError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """The device of the networks, and the dtype of their weights and activations. With `upcasts` only the weights have
    the dtype, and each layer computes in float32."""

    device: torch.device
    dtype: torch.dtype
    upcasts: bool = False

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def place(settings: Settings) -> Placement:
    """Resolve the settings' `auto` values. Raises SettingsError when this machine lacks the device or the dtype."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("LORIKEET_DEVICE: cuda needs a CUDA device, and torch found none; set cpu or auto")
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if settings.engine == "tensorrt" and not on_gpu:
        raise SettingsError("LORIKEET_ENGINE: tensorrt needs CUDA, and the networks run on the CPU")
    precision = settings.precision
    if precision == "auto":
        precision = "float16" if on_gpu else "bfloat16" if has_bfloat16() else "float32"
    if precision == "float16" and not on_gpu:
        raise SettingsError("LORIKEET_PRECISION: float16 needs CUDA; on a CPU use bfloat16 or float32")
    upcasts = precision == "bfloat16" and not on_gpu and not has_bfloat16()
    return Placement(torch.device("cuda" if on_gpu else "cpu"), _DTYPES[precision], upcasts)


def safe_dtype(architecture: Architecture, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a network: SDXL's VAE overflows in float16; its configuration says so (`force_upcast`)."""
    is_vae = architecture.kind in ("vae_encoder", "vae_decoder")
    return torch.float32 if dtype == torch.float16 and is_vae and architecture.options["force_upcast"] else dtype


def set_convolutions(placement: Placement) -> None:
    """Let a GPU compute convolutions in float32 with TF32's 10 bits only where float16 would be accurate enough.

    diffusers keeps SDXL's VAE in float32 for its range, not for its digits.
    """
    torch.backends.cudnn.allow_tf32 = placement.dtype != torch.float32


def pin_threads(settings: Settings) -> None:
    """Fix torch's thread count, so that results do not depend on the machine's load."""
    torch.set_num_threads(settings.threads or _physical_cores())
    if torch.get_num_interop_threads() != 1:  # torch allows one call only
        torch.set_num_interop_threads(1)


def _physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once."""
    usable = os.sched_getaffinity(0)
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            return len(usable)
    return len(cores)
