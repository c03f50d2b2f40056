"""The plan: the validated request that `prepare` writes for the later stages, as JSON.

The later stages read the request from the plan alone.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.checkpoints.ip_adapter_names import ProjectionKind
from runtime.conditioning.ip_buckets import token_bucket
from runtime.files.local_path import LocalPath
from runtime.jobs.job_table import JobRef
from runtime.lora.lora_receipt import LoraReceipt
from runtime.tile_plan import UNetTiles, VaeTile

PictureTensor = Literal["PICTURES", "IMAGE_PROMPTS", "CONTROLS"]
# The fields that name pictures; `{}` is the index of an item of a list.
INIT_IMAGE = "image_url"
CONTROL_IMAGE = "controlnets[{}].image_url"
CONTROL_MASK = "controlnets[{}].mask_url"
FOREGROUND = "ic_light_image_url"
BACKGROUND = "ic_light_model_background_image_url"
IP_MASK = "ip_adapter[{}].ip_adapter_mask_url"


class LoraPlan(BaseModel):
    """A LoRA file that was checked against the checkpoint.

    `field`: the request's field that names it. `components`: the names of the components that it changes; the stages of
    other components do not open the file. `receipt`: which parts of the file are applied. `of_adapter`: the file is an
    IP-Adapter's, which has a LoRA besides.
    """

    model_config = ConfigDict(frozen=True)
    field: str
    path: LocalPath
    digest: str
    fingerprint: str = ""
    scale: float
    components: frozenset[str]
    receipt: LoraReceipt
    of_adapter: bool = False


class FacePackPlan(BaseModel):
    """The ONNX files of an InsightFace pack. `field`: the request's field that names it."""

    model_config = ConfigDict(frozen=True)
    field: str
    files: tuple[WeightFile, ...]


class IpAdapterPlan(BaseModel):
    """An IP-Adapter that was checked against the checkpoint.

    `images`: the fields that name its pictures. `scales`: of each cross-attention layer of the UNet, in module order.
    `widths`: their inner widths. `face_pack`: finds the face in each picture, for the adapters that take one.
    """

    model_config = ConfigDict(frozen=True)
    projection: Component
    images: tuple[str, ...]
    scales: tuple[float, ...]
    widths: tuple[int, ...]
    face_pack: FacePackPlan | None = None

    @property
    def kind(self) -> ProjectionKind:
        kind: ProjectionKind = self.projection.config["projection"]
        return kind

    @property
    def needs_encoder(self) -> bool:
        """Whether it takes an output of the image encoder. FaceID and InstantID (`plus`) take a face alone."""
        return self.face_pack is None or self.kind == "faceid_plus"


class IcLightPlan(BaseModel):
    """An IC-Light file that was checked against the checkpoint. `in_channels`: of the UNet with its offsets."""

    model_config = ConfigDict(frozen=True)
    path: LocalPath
    digest: str
    fingerprint: str = ""
    in_channels: int


class EmbeddingPlan(BaseModel):
    """A textual inversion whose tensors were checked against the text encoders.

    `field`: the request's field that names its file. `tokens`: one for all of its vectors, or one for each. With
    `whole_words` they are no parts of longer words. `tensors`: for each text encoder, the name of the vectors' tensor.
    """

    model_config = ConfigDict(frozen=True)
    field: str
    path: LocalPath
    digest: str
    fingerprint: str = ""
    tokens: tuple[str, ...]
    whole_words: bool = False
    vectors: int
    tensors: tuple[str, ...]


class PicturePlan(BaseModel):
    """A decoded picture: the request's field that names it, its size in pixels, and its byte offset in `tensor`.

    PICTURES has those of the VAE, IMAGE_PROMPTS those of the image encoder, and CONTROLS those of the denoiser.
    """

    model_config = ConfigDict(frozen=True)
    field: str
    tensor: PictureTensor = "PICTURES"
    height: int
    width: int
    offset: int

    @property
    def nbytes(self) -> int:
        return 3 * self.height * self.width

    def pixels(self, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
        """RGB pixels [H, W, 3] of this picture. `tensors` has its tensor, UINT8 [bytes]."""
        data = tensors[self.tensor][self.offset : self.offset + self.nbytes]
        return data.reshape(self.height, self.width, 3)


class Plan(BaseModel):
    """A validated request. `files`: the digest of each weight file, by field and component.

    `width`, `height`: pixels of the result. `padded_width`, `padded_height`: pixels that the networks process, the next
    multiples of the VAE's scale factor. `started`: CLOCK_MONOTONIC seconds. A queue runs lower `priority` values first.
    `unet_tiles`, `vae_tile`: None where one call processes the whole picture.
    """

    # Schedulers' configurations can contain infinity, which pydantic would otherwise write as null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    job_id: int
    slot: int
    started: float
    priority: int
    request: ImageToImageInput
    checkpoint: Checkpoint
    loras: tuple[LoraPlan, ...]
    controlnets: tuple[Component, ...] = ()
    ip_adapters: tuple[IpAdapterPlan, ...] = ()
    image_encoder: Component | None = None
    ic_light: IcLightPlan | None = None
    safety_checker: Component | None = None
    embeddings: tuple[EmbeddingPlan, ...]
    pictures: tuple[PicturePlan, ...]
    seed: int
    width: int
    height: int
    padded_width: int
    padded_height: int
    files: dict[str, str]
    warnings: tuple[str, ...]
    unet_tiles: UNetTiles | None = None
    vae_tile: VaeTile | None = None

    @property
    def job(self) -> JobRef:
        return JobRef(self.job_id, self.slot)

    def picture(self, field: str) -> PicturePlan | None:
        """The picture that a field names; None when there is none."""
        return next((picture for picture in self.pictures if picture.field == field), None)

    @property
    def unet(self) -> Component:
        """The checkpoint's UNet, with the input channels of IC-Light."""
        unet = self.checkpoint.unet
        if self.ic_light is None:
            return unet
        config = {**unet.config, "in_channels": self.ic_light.in_channels}
        return Component(**{**unet.model_dump(), "config": config})

    @property
    def has_image(self) -> bool:
        """Whether the request has an init image."""
        return self.picture(INIT_IMAGE) is not None

    @property
    def latents_shape(self) -> tuple[int, int, int, int]:
        """[N, 4, h, w]: the latents of all pictures."""
        scale = self.checkpoint.vae_scale_factor
        return (self.request.num_images, 4, self.padded_height // scale, self.padded_width // scale)

    @property
    def image_prompt_shape(self) -> tuple[int, int, int, int]:
        """[branches, adapters, tokens, sum of inner widths]: the keys, and the values, of the image prompts."""
        branches = 2 if self.guided else 1
        if not self.ip_adapters:
            return (branches, 0, 0, 0)
        counts, tokens = 0, 0
        for index, adapter in enumerate(self.ip_adapters):
            is_masked = self.picture(IP_MASK.format(index)) is not None
            counts += len(adapter.images) if is_masked else 1
            tokens = max(tokens, self._tokens(adapter) if is_masked else self._tokens(adapter) * len(adapter.images))
        return (branches, counts, token_bucket(tokens), sum(self.ip_adapters[0].widths))

    @property
    def control_tokens(self) -> dict[int, int]:
        """The IP-Adapters whose tokens condition ControlNets (InstantID), in order: index -> tokens of all pictures."""
        named = {controlnet.ip_adapter_index for controlnet in self.request.controlnets}
        return {
            index: self._tokens(adapter) * len(adapter.images)
            for index, adapter in enumerate(self.ip_adapters)
            if index in named
        }

    @property
    def control_tokens_shape(self) -> tuple[int, int, int]:
        """[branches, tokens of all these IP-Adapters, width]."""
        if not (counts := self.control_tokens):
            return (0, 0, 0)
        width = self.ip_adapters[0].projection.config["cross_attention_dim"]
        return (2 if self.guided else 1, sum(counts.values()), width)

    def _tokens(self, adapter: IpAdapterPlan) -> int:
        """The tokens of one picture."""
        projection = adapter.projection.config
        if adapter.kind != "full":
            return int(projection["tokens"])
        assert self.image_encoder is not None
        encoder = self.image_encoder.config
        return 1 + int(encoder.get("image_size", 224) // encoder.get("patch_size", 32)) ** 2

    @property
    def guided(self) -> bool:
        """Whether the UNet makes two predictions for each latent (see `is_guided`)."""
        return is_guided(self.request, self.checkpoint)

    @property
    def guidance_width(self) -> int | None:
        """The width of the guidance scale's embedding that the UNet takes as input; None when it takes none."""
        return _guidance_width(self.checkpoint)

    def block_rows(self, setting: int) -> int:
        """Rows in one call of the UNet, and of the ControlNets. `setting`: `LORIKEET_BLOCK_ROWS`; 0 is the default."""
        return setting or (2 if self.guided else 1)

    def to_json(self) -> bytes:
        """The plan as JSON; `model_validate_json` reads it."""
        return self.model_dump_json(exclude_unset=True).encode()


def sized_picture(request: ImageToImageInput, pictures: Container[str]) -> str | None:
    """The field of the picture whose size is the result's; None: `image_size` or the checkpoint's native size is.

    pictures: the fields of the request's pictures. It is the first control image, else the init image, else IC-Light's
    foreground. Without an init image, `image_size` has precedence.
    """
    if request.image_url is None and request.image_size is not None:
        return None
    return next((field for field in (CONTROL_IMAGE.format(0), INIT_IMAGE, FOREGROUND) if field in pictures), None)


def is_guided(request: ImageToImageInput, checkpoint: Checkpoint) -> bool:
    """Whether the negative prompt has an effect (classifier-free guidance, arXiv 2207.12598).

    A UNet distilled with guidance takes the scale as an input (`timestep_cond`) instead. Both are as in diffusers.
    """
    return request.guidance_scale > 1.0 and _guidance_width(checkpoint) is None


def _guidance_width(checkpoint: Checkpoint) -> int | None:
    width: int | None = checkpoint.unet.config.get("time_cond_proj_dim")
    return width
