"""The size of the result, and the padded size that the networks process."""

from __future__ import annotations

from dataclasses import dataclass

from lorikeet.schema import ImageToImageInput, size_in_pixels
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.image_codec import MAX_JPEG_SIDE, MIN_SIDE
from runtime.plan import sized_picture
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.pictures import Pictures


@dataclass(frozen=True)
class Size:
    """Pixels of the result; `padded_width` and `padded_height` are the next multiples of the VAE's scale factor."""

    width: int
    height: int
    padded_width: int
    padded_height: int


def resolve(request: ImageToImageInput, context: PrepareContext, pictures: Pictures, checkpoint: Checkpoint) -> Size:
    """The size of a picture (`sized_picture`), else `image_size`, else the checkpoint's native size.

    Raises InvalidArgument.
    """
    width, height = _size(request, context, pictures, checkpoint)
    if request.image_format == "jpeg" and max(width, height) > MAX_JPEG_SIDE:
        raise InvalidArgument(
            "image_format", f"JPEG has at most {MAX_JPEG_SIDE} pixels along a side, not {max(width, height)}: use png"
        )
    scale = checkpoint.vae_scale_factor
    return Size(width, height, -(-width // scale) * scale, -(-height // scale) * scale)


def _size(
    request: ImageToImageInput, context: PrepareContext, pictures: Pictures, checkpoint: Checkpoint
) -> tuple[int, int]:
    if field := sized_picture(request, pictures.pixels):
        height, width = pictures.pixels[field].shape[:2]
        return width, height
    native = checkpoint.native_size
    width, height = size_in_pixels(request.image_size) if request.image_size else (native, native)
    most = context.settings.max_pixels
    if width * height > most or min(width, height) < MIN_SIDE:
        raise InvalidArgument(
            "image_size", f"{width}x{height}: each side must have at least {MIN_SIDE} pixels, and all at most {most}"
        )
    return width, height
