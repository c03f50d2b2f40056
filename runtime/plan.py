"""The plan: what `prepare` makes of a request, and all that the later stages know of it. It travels as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobRef


class LoraPlan(BaseModel):
    """A LoRA file that was checked against the checkpoint, its scale, the field that named it, and the names of the
    components that it changes: other stages need not open it."""

    model_config = ConfigDict(frozen=True)
    field: str
    path: Path
    digest: str
    stamp: str = ""
    scale: float
    components: frozenset[str]


class Plan(BaseModel):
    """A validated request, its files by digest. `width`, `height`: pixels of the result; the networks work on
    `padded_width`, `padded_height`, the next multiples of the VAE's scale factor. `started`: CLOCK_MONOTONIC. Where
    jobs wait, a lower `priority` goes first."""

    # Infinity is a value that schedulers' configurations have; it must not arrive as null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    job_id: int
    slot: int
    started: float
    priority: int
    request: ImageToImageInput
    checkpoint: Checkpoint
    loras: tuple[LoraPlan, ...]
    seed: int
    has_image: bool
    width: int
    height: int
    padded_width: int
    padded_height: int
    files: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def job(self) -> JobRef:
        return JobRef(self.job_id, self.slot)

    @property
    def latents_shape(self) -> tuple[int, int, int, int]:
        """[N, 4, h, w]: the latents of all pictures."""
        scale = self.checkpoint.vae_scale_factor
        return (self.request.num_images, 4, self.padded_height // scale, self.padded_width // scale)

    @property
    def guided(self) -> bool:
        """Whether the UNet is asked twice (classifier-free guidance, arXiv 2207.12598), as in diffusers.

        A UNet distilled with guidance takes its scale as an input (`timestep_cond`) instead.
        """
        return self.request.guidance_scale > 1.0 and self.guidance_width is None

    @property
    def guidance_width(self) -> int | None:
        """Numbers in the embedding of the guidance scale that the UNet takes; None for one that takes none."""
        return self.checkpoint.unet.config.get("time_cond_proj_dim")

    def to_tensor(self) -> npt.NDArray[np.object_]:
        """BYTES [1]."""
        return np.array([self.model_dump_json(exclude_unset=True).encode()], dtype=np.object_)

    @classmethod
    def from_tensor(cls, tensor: npt.NDArray[Any]) -> Plan:
        return cls.model_validate_json(tensor.reshape(-1)[0])
