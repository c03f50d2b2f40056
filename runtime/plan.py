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

INIT_IMAGE = "image_url"  # the field of the picture that the latents start from


class LoraPlan(BaseModel):
    """A LoRA file that was checked against the checkpoint.

    `field` named it. `components`: the names of those that it changes, so that other stages need not open it.
    """

    model_config = ConfigDict(frozen=True)
    field: str
    path: Path
    digest: str
    fingerprint: str = ""
    scale: float
    components: frozenset[str]


class PicturePlan(BaseModel):
    """A decoded picture of the request: the field that named it, its size in pixels, and where it lies in PICTURES."""

    model_config = ConfigDict(frozen=True)
    field: str
    height: int
    width: int
    offset: int

    @property
    def nbytes(self) -> int:
        return 3 * self.height * self.width

    def pixels(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """RGB pixels [H, W, 3] of this picture in the tensor PICTURES, UINT8 [bytes]."""
        data = pictures[self.offset : self.offset + self.nbytes]
        return data.reshape(self.height, self.width, 3)


class Plan(BaseModel):
    """A validated request, its files by digest.

    `width`, `height`: pixels of the result; the networks work on `padded_width`, `padded_height`, the next multiples of
    the VAE's scale factor. `started`: CLOCK_MONOTONIC seconds. Where jobs queue, a lower `priority` goes first.
    """

    # Infinity is a value that schedulers' configurations have; it must not arrive as null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    job_id: int
    slot: int
    started: float
    priority: int
    request: ImageToImageInput
    checkpoint: Checkpoint
    loras: tuple[LoraPlan, ...]
    pictures: tuple[PicturePlan, ...]
    seed: int
    width: int
    height: int
    padded_width: int
    padded_height: int
    files: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def job(self) -> JobRef:
        return JobRef(self.job_id, self.slot)

    def picture(self, field: str) -> PicturePlan | None:
        """The picture that a field named."""
        return next((picture for picture in self.pictures if picture.field == field), None)

    @property
    def pictures_bytes(self) -> int:
        """Bytes of the tensor PICTURES."""
        return sum(picture.nbytes for picture in self.pictures)

    @property
    def has_image(self) -> bool:
        """Whether the latents start from a picture."""
        return self.picture(INIT_IMAGE) is not None

    @property
    def latents_shape(self) -> tuple[int, int, int, int]:
        """[N, 4, h, w]: the latents of all pictures."""
        scale = self.checkpoint.vae_scale_factor
        return (self.request.num_images, 4, self.padded_height // scale, self.padded_width // scale)

    @property
    def guided(self) -> bool:
        """Whether the UNet predicts twice a latent (classifier-free guidance, arXiv 2207.12598), as in diffusers.

        A UNet distilled with guidance takes its scale as an input (`timestep_cond`) instead.
        """
        return self.request.guidance_scale > 1.0 and self.guidance_width is None

    @property
    def guidance_width(self) -> int | None:
        """The width of the guidance scale's embedding that the UNet takes; None for a UNet that takes none."""
        return self.checkpoint.unet.config.get("time_cond_proj_dim")

    def to_tensor(self) -> npt.NDArray[np.object_]:
        """BYTES [1]."""
        return np.array([self.model_dump_json(exclude_unset=True).encode()], dtype=np.object_)

    @classmethod
    def from_tensor(cls, tensor: npt.NDArray[Any]) -> Plan:
        return cls.model_validate_json(tensor.reshape(-1)[0])
