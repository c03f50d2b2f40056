"""Decodes and encodes pictures. A picture of a request is untrusted: its size is checked before it is decoded."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lorikeet.protocol.shorten import shorten

Pixels = npt.NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MIN_SIDE = 64  # the UNet halves the latents (an eighth of a side) three times


class ImageError(ValueError):
    """The bytes are not a usable picture; the message is fit for the client."""


def decode_image(data: bytes, max_pixels: int) -> Pixels:
    """RGB pixels [H, W, 3] of the first frame, rotated by the EXIF orientation; transparent pixels are over white.

    Raises ImageError: unknown format, damaged, or its size out of bounds.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{width}x{height} pixels: expected at most {max_pixels} in all; send a smaller picture"
                )
            if min(width, height) < MIN_SIDE:
                raise ImageError(
                    f"{width}x{height} pixels: expected at least {MIN_SIDE} on each side; send a larger picture"
                )
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_flatten(upright))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # the limit of Pillow itself, which may be lower
        raise ImageError(f"expected at most {max_pixels} pixels; send a smaller picture") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture: expected one of the formats {', '.join(_FORMATS)}") from error
    except Exception as error:  # the decoders of Pillow raise many classes for damaged files
        raise ImageError(f"the picture is damaged ({shorten(str(error))})") from error


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit grey to 255 instead of scaling it.
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def encode_image(pixels: Pixels, image_format: Literal["png", "jpeg"]) -> bytes:
    """An encoded file of RGB pixels [H, W, 3]: PNG at compression level 1, JPEG at quality 95 (as fal encodes)."""
    options = {"compress_level": 1} if image_format == "png" else {"quality": 95}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format.upper(), **options)
    return buffer.getvalue()
