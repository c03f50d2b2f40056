"""A checkpoint: the configuration and the weight files of each of its networks. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.layouts import LayoutName, views
from runtime.checkpoints.view import Views
from runtime.files.local_path import LocalPath
from runtime.files.safetensors_file import FLOATS, WeightFileError, read_header

MAX_TOKENS = 77  # per prompt chunk: the position embeddings of CLIP's text encoders
CheckpointKind = Literal["sd", "sdxl"]  # SD 1.x and 2.x, SDXL
Role = Literal[
    "unet", "vae", "text_encoder", "text_encoder_2", "controlnet", "image_encoder", "image_projection", "safety_checker"
]


class WeightFile(BaseModel):
    """A weight file. `digest` and `fingerprint`: see `StoredFile`."""

    model_config = ConfigDict(frozen=True)
    path: LocalPath
    digest: str
    fingerprint: str = ""


class Component(BaseModel):
    """A network of a request: its diffusers or transformers configuration, and its weight files.

    `name` is unique in a plan; the default is the role. `field` is the request field that named the component.
    `layout` is the naming scheme of the tensors in the files, which may also hold other components.
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
        """SHA-256 of the weights' digest and the configuration. Equal networks have equal digests."""
        text = json.dumps([self.weights_digest, self.config], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the files' digests and of the role and layout, which map the files' tensors to parameters."""
        text = json.dumps([self.role, self.layout, [file.digest for file in self.files]])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical parameter name -> shape, from the files' headers. Raises WeightFileError."""
        return _shapes(self)

    def views(self, names: Collection[str]) -> dict[str, Views]:
        """Stored tensor's name -> the parameters that it holds; see `layouts`. `names` are all names of the file."""
        return views(self.layout, self.role, self.config, names)


@lru_cache(maxsize=64)
def _shapes(component: Component) -> dict[str, tuple[int, ...]]:
    """Cached outside the Component, because every request makes a new Component."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in component.files:
        tensors = read_header(file.path).tensors
        for name, held in component.views(tensors.keys()).items():
            info = tensors[name]
            for view in held:
                if info.dtype not in FLOATS:
                    raise WeightFileError(
                        f"{shorten(name)} has dtype {info.dtype}; expected one of {', '.join(FLOATS)}"
                    )
                if view.name in shapes:
                    raise WeightFileError(
                        f"{shorten(view.name)} is there twice, also as {shorten(name)}; expected one tensor"
                    )
                shapes[view.name] = view.shape(info.shape)
    return shapes


def kind_of(unet: Component) -> CheckpointKind:
    """Only the UNet of SDXL has an added embedding: of the pooled text and the time_ids. Raises WeightFileError."""
    return "sdxl" if "add_embedding.linear_1.weight" in unet.shapes else "sd"


class Tokenizer(BaseModel):
    """A tokenizer folder and its files' fingerprints. Folder None is CLIP's vocabulary, padded with `pad_token`."""

    model_config = ConfigDict(frozen=True)
    folder: LocalPath | None = None
    fingerprints: tuple[str, ...] = ()
    pad_token: str | None = None


class Checkpoint(BaseModel):
    """The networks, tokenizers and scheduler configuration that the stages use."""

    model_config = ConfigDict(frozen=True)
    kind: CheckpointKind
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
        """The components that a LoRA can change."""
        return (self.unet, *self.text_encoders)

    @property
    def native_size(self) -> int:
        """The side length in pixels of the pictures that the UNet was trained on."""
        size = self.unet.config.get("sample_size") or (128 if self.kind == "sdxl" else 64)
        return int(size if isinstance(size, int) else size[0]) * self.vae_scale_factor

    @property
    def scaling_factor(self) -> float:
        """The factor that multiplies the VAE's latents. SD 1.5 publishes none, so the default is diffusers'."""
        return float(self.vae.config.get("scaling_factor", 0.18215))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent along each axis."""
        return int(2 ** (len(self.vae.config.get("block_out_channels", [64])) - 1))
