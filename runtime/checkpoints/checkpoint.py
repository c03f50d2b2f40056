"""A checkpoint: its architecture, told from the weights, and where each part of it lies. No torch."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from runtime.checkpoints.names import canonical_name
from runtime.files.tensors import FLOATS, WeightFileError, read_header

Kind = Literal["sd", "sdxl"]


class WeightFile(BaseModel):
    """A file of weights and the SHA-256 of its content."""

    model_config = ConfigDict(frozen=True)
    path: Path
    digest: str


class Component(BaseModel):
    """A network of a checkpoint: its diffusers or transformers configuration and its weight files."""

    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,))
    name: str
    config: dict[str, Any]
    files: tuple[WeightFile, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what determines the network: architecture and weights."""
        text = json.dumps([self.config, [file.digest for file in self.files]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical parameter name -> shape, from the files' headers. Raises WeightFileError."""
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            for name, info in read_header(file.path).tensors.items():
                canonical = canonical_name(self.name, name)
                if canonical is None:
                    continue
                if info.dtype not in FLOATS:
                    raise WeightFileError(f"{name} has dtype {info.dtype}; weights are {', '.join(FLOATS)}")
                shapes[canonical] = info.shape
        return shapes


class Checkpoint(BaseModel):
    """Everything that the stages need to know of a checkpoint."""

    model_config = ConfigDict(frozen=True)
    kind: Kind
    unet: Component
    vae: Component
    text_encoders: tuple[Component, ...]
    tokenizers: tuple[Path, ...]
    scheduler: dict[str, Any]

    @property
    def components(self) -> tuple[Component, ...]:
        return (self.vae, *self.adaptable)

    @property
    def adaptable(self) -> tuple[Component, ...]:
        """What a LoRA may change."""
        return (self.unet, *self.text_encoders)

    @property
    def native_size(self) -> int:
        """Pixels of a side that the UNet was made for."""
        size = self.unet.config.get("sample_size") or (128 if self.kind == "sdxl" else 64)
        return int(size if isinstance(size, int) else size[0]) * self.vae_scale_factor

    @property
    def scaling_factor(self) -> float:
        """What the VAE's latents are multiplied by. The published SD 1.5 does not say it: diffusers' default."""
        return float(self.vae.config.get("scaling_factor", 0.18215))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels for one latent, in each direction."""
        return int(2 ** (len(self.vae.config.get("block_out_channels", [64])) - 1))
