"""A checkpoint: its architecture, told from the weights, and where each part of it lies. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from runtime.checkpoints.layouts import Finder, LayoutName, views
from runtime.files.safetensors_file import FLOATS, WeightFileError, read_header

MAX_TOKENS = 77  # of a prompt: the positions of CLIP's text encoders
Kind = Literal["sd", "sdxl"]
Role = Literal["unet", "vae", "text_encoder", "text_encoder_2", "controlnet", "image_encoder"]
_SHOWN = 200  # characters of a name that a message repeats


class WeightFile(BaseModel):
    """A file of weights, the SHA-256 of its content, and its fingerprint, which shows a change (see `store`)."""

    model_config = ConfigDict(frozen=True)
    path: Path
    digest: str
    fingerprint: str = ""


class Component(BaseModel):
    """A network of a request: its diffusers or transformers configuration, and the files and names of its weights.

    `role` says what it is, `name` which one it is (unique in a plan; the role, where there is one of that role), and
    `field` which field of the request named it. Several components may lie in one file: `layout` says how it names the
    tensors of each.
    """

    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,))
    role: Role
    name: str = ""
    field: str = "model_name"
    config: dict[str, Any]
    files: tuple[WeightFile, ...]
    layout: LayoutName = "component"

    @model_validator(mode="before")
    @classmethod
    def _named_by_role(cls, values: Any) -> Any:
        return {"name": values["role"], **values} if isinstance(values, dict) and "role" in values else values

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what determines the network: architecture and weights."""
        text = json.dumps([self.weights_digest, self.config], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of what determines the weights alone: the files, and the view that finds the parameters in them."""
        text = json.dumps([self.role, self.layout, [file.digest for file in self.files]])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical parameter name -> shape, from the files' headers. Raises WeightFileError."""
        return _shapes(self)

    def views(self, names: Collection[str]) -> Finder:
        """What finds the parameters that a stored tensor holds, given the names of all that its file holds."""
        return views(self.layout, self.role, self.config, names)


@lru_cache(maxsize=64)
def _shapes(component: Component) -> dict[str, tuple[int, ...]]:
    """Kept, as every request brings a Component of its own."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in component.files:
        tensors = read_header(file.path).tensors
        find = component.views(tensors.keys())
        for name, info in tensors.items():
            for view in find(name):
                if info.dtype not in FLOATS:
                    raise WeightFileError(f"{name[:_SHOWN]} has dtype {info.dtype}; weights are {', '.join(FLOATS)}")
                if view.name in shapes:
                    raise WeightFileError(f"{view.name[:_SHOWN]} is there twice, also as {name[:_SHOWN]}")
                shapes[view.name] = view.shape(info.shape)
    return shapes


class Tokenizer(BaseModel):
    """A tokenizer folder and its files' fingerprints; None is CLIP's own vocabulary, padded with `pad_token`."""

    model_config = ConfigDict(frozen=True)
    folder: Path | None = None
    fingerprints: tuple[str, ...] = ()
    pad_token: str | None = None


class Checkpoint(BaseModel):
    """Everything that the stages need to know of a checkpoint."""

    model_config = ConfigDict(frozen=True)
    kind: Kind
    unet: Component
    vae: Component
    text_encoders: tuple[Component, ...]
    tokenizers: tuple[Tokenizer, ...]
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
