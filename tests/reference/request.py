"""What the oracle is asked."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.reference.multidiffusion import ReferenceTiles


@dataclass(frozen=True)
class ReferenceLora:
    """A LoRA file and its scale."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class ReferenceControlNet:
    """A ControlNet's folder in diffusers' layout, its picture, and its mask, of the picture's size.

    `served`: a file with the same weights; the request to the server names it instead. `ip_adapter`: the number of the
    IP-Adapter whose tokens the network takes in place of the text (InstantID).
    """

    path: Path
    image: Image.Image
    mask: Image.Image | None = None
    conditioning_scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    served: Path | None = None
    ip_adapter: int | None = None


@dataclass(frozen=True)
class ReferenceIpAdapter:
    """An IP-Adapter's file, beside the folder `image_encoder`, its image prompts, and its mask.

    `scale`: a number, or diffusers' scales by block as JSON. `noising_factor`: 0 is diffusers' negative image prompt.
    `face_pack`: the folder of the InsightFace pack that finds the face in each image. `shortcut`: of FaceID Plus V2.
    """

    path: Path
    images: tuple[Image.Image, ...]
    mask: Image.Image | None = None
    scale: float | str = 1.0
    noising_factor: float = 0.0
    face_pack: Path | None = None
    shortcut: bool = True


@dataclass(frozen=True)
class ReferenceEmbedding:
    """A file of a textual inversion, and its tokens: one for all vectors, or one for each."""

    path: Path
    tokens: tuple[str, ...]


# A weighted prompt: the parts that BREAK divides, each of texts and their weights.
Parts = tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class ReferenceRequest:
    """A request in the API's terms, with the API's defaults; `model` is a checkpoint in diffusers' layout.

    With `image` (sides multiples of 8) it is image-to-image and `noise_strength` counts; without, it is
    text-to-image at `width` x `height`, or at the checkpoint's own size. `scheduler` is one of the API's
    names, or None for the checkpoint's own; so is `prediction_type`. `timesteps` or `sigmas`, when there are any,
    replace `num_inference_steps`, and `noise_strength` is then the part of them that is run. With `parts`, these and
    `negative_parts` are the prompts.
    """

    model: Path
    prompt: str
    negative_prompt: str = ""
    image: Image.Image | None = None
    noise_strength: float = 0.5
    loras: tuple[ReferenceLora, ...] = ()
    embeddings: tuple[ReferenceEmbedding, ...] = ()
    parts: Parts = ()
    negative_parts: Parts = ()
    seed: int = 0
    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    scheduler: str | None = None
    num_images: int = 1
    clip_skip: int = 0
    eta: float = 0.0
    timesteps: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    prediction_type: str | None = None
    rescale_betas_snr_zero: bool = False
    controlnets: tuple[ReferenceControlNet, ...] = ()
    controlnet_guess_mode: bool = False
    ip_adapters: tuple[ReferenceIpAdapter, ...] = ()
    width: int | None = None
    height: int | None = None
    tiles: ReferenceTiles | None = None

    def __post_init__(self) -> None:
        if self.image is not None and any(side % 8 for side in self.image.size):
            raise ValueError(f"the image's sides are not multiples of 8: {self.image.size}")
        if self.image is not None and not 0 < self.noise_strength <= 1:
            raise ValueError(f"diffusers has no steps to run at noise_strength {self.noise_strength}")
