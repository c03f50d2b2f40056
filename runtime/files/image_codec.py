"""Decodes and encodes pictures. A picture of a request is untrusted: its size is checked before it is decoded."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lorikeet.protocol.shorten import shorten
from runtime.files.picture_metadata.strip_metadata import strip_metadata
from runtime.files.picture_metadata.stripped_picture import StripError
from runtime.stage_errors import StageError

Pixels = npt.NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MIN_SIDE = 64  # the UNet halves the latents (an eighth of a side) three times
MAX_JPEG_SIDE = 65_500  # pixels; libjpeg encodes no longer side
_CHECK_SECONDS = 0.05
_MAX_COMMENT = 65_533  # bytes in one segment of a JPEG file
_UPRIGHT_BY = {  # by Exif's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """The bytes are not a usable picture; the message is fit for the client."""


def decode_image(data: bytes, max_pixels: int, check_cancelled: Callable[[], None] = lambda: None) -> Pixels:
    """RGB pixels [H, W, 3] of the first frame, upright by the Exif orientation; transparent pixels are over white.

    Metadata is removed before Pillow reads the file: damaged or long metadata changes no pixel. Colour profiles are not
    applied. Raises ImageError: unknown format, damaged, or its size out of bounds. `check_cancelled` is called every
    0.05 s while the file is read, and what it raises is passed on.
    """
    try:
        stripped = strip_metadata(data, check_cancelled)
        with Image.open(_CheckedReader(stripped.data, check_cancelled), formats=_FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return np.asarray(_upright(_flatten(image), stripped.orientation))
    except (ImageError, StageError):
        raise
    except StripError as error:
        raise ImageError(str(error)) from error
    except Image.DecompressionBombError as error:  # the limit of Pillow itself, which may be lower
        raise ImageError(f"expected at most {max_pixels} pixels; send a smaller picture") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a picture: expected one of the formats {', '.join(_FORMATS)}") from error
    except Exception as error:  # the decoders of Pillow raise many classes for damaged files
        raise ImageError(f"the picture is damaged ({shorten(str(error))})") from error


class _CheckedReader(io.BytesIO):
    """Calls `check_cancelled` from its reads. Pillow's decoders read at most 64 KB at once."""

    def __init__(self, data: bytes, check_cancelled: Callable[[], None]) -> None:
        super().__init__(data)
        self._check_cancelled, self._checked = check_cancelled, time.monotonic()

    def read(self, size: int | None = -1, /) -> bytes:
        if (now := time.monotonic()) - self._checked > _CHECK_SECONDS:
            self._checked = now
            self._check_cancelled()
        return super().read(size)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels: expected at most {max_pixels} in all; send a smaller picture")
    if min(size) < MIN_SIDE:
        raise ImageError(f"{width}x{height} pixels: expected at least {MIN_SIDE} on each side; send a larger picture")


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, which Pillow clips at 255. The transparent value becomes white."""
    values = np.asarray(image, np.uint32)
    grey = (values >> 8).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT_BY.get(orientation)
    return image if method is None else image.transpose(method)


def resize(pixels: Pixels, width: int, height: int, method: Image.Resampling) -> Pixels:
    """RGB pixels [H, W, 3] at another size; of their own size they are returned unchanged."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def as_mask(pixels: Pixels) -> Pixels:
    """RGB pixels [H, W, 3] of a mask in grey: all channels have the picture's luma."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def encode_image(pixels: Pixels, image_format: Literal["png", "jpeg"], metadata: str = "") -> bytes:
    """An encoded file of RGB pixels [H, W, 3]: PNG at compression level 1, JPEG at quality 95 (as fal encodes).

    `metadata`: a text that PNG holds under the name `lorikeet`, and JPEG as its comment unless it is over 64 KB.
    """
    options: dict[str, Any]
    if image_format == "png":
        text = PngInfo()
        if metadata:
            text.add_itxt("lorikeet", metadata)
        options = {"compress_level": 1, "pnginfo": text}
    else:
        comment = metadata.encode()
        options = {"quality": 95} | ({"comment": comment} if 0 < len(comment) <= _MAX_COMMENT else {})
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format.upper(), **options)
    return buffer.getvalue()
