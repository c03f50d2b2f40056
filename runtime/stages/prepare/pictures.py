"""The pictures of a request: fetched, decoded, and packed into one tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from runtime.files.image_codec import ImageError, Pixels, decode_image
from runtime.plan import PicturePlan, PictureTensor
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Array
from runtime.stages.prepare.context import PrepareContext

TENSORS: tuple[PictureTensor, ...] = get_args(PictureTensor)
_LARGEST_AT_ONCE = 4  # pictures of LORIKEET_MAX_PIXELS that a request may have; more of them if they are smaller


@dataclass(frozen=True)
class Pictures:
    """The decoded pictures RGB [H, W, 3] by the field that named them, in one tensor for each stage that needs some."""

    pixels: dict[str, Pixels]

    @property
    def plans(self) -> tuple[PicturePlan, ...]:
        """Their places in `tensors`."""
        found, offsets = [], dict.fromkeys(TENSORS, 0)
        for field, pixels in self.pixels.items():
            tensor = _tensor_of(field)
            height, width = pixels.shape[:2]
            found.append(PicturePlan(field=field, tensor=tensor, height=height, width=width, offset=offsets[tensor]))
            offsets[tensor] += found[-1].nbytes
        return tuple(found)

    @property
    def tensors(self) -> dict[str, Array]:
        """Each UINT8 [bytes]: its pictures, one after the other."""
        parts: dict[str, list[Array]] = {name: [np.zeros(0, np.uint8)] for name in TENSORS}
        for field, pixels in self.pixels.items():
            parts[_tensor_of(field)].append(pixels.reshape(-1))
        return {name: np.concatenate(found) for name, found in parts.items()}


def resolve(named: Iterable[tuple[str, str]], context: PrepareContext) -> Pictures:
    """The pictures of (field, file reference) pairs.

    Raises InvalidArgument that names the field of a picture that cannot be fetched or decoded, or with which a request
    has too many pixels. Raises what `context.check_cancelled` raises.
    """
    found: dict[str, Pixels] = {}
    for field, url in named:
        found[field] = _picture(field, url, context)
        check_pixels(field, sum(pixels.size // 3 for pixels in found.values()), context)
    return Pictures(found)


def check_pixels(field: str, pixels: int, context: PrepareContext) -> None:
    """Raises InvalidArgument when the pictures up to that of `field` have too many pixels for one request."""
    most = _LARGEST_AT_ONCE * context.settings.max_pixels
    if pixels > most:
        raise InvalidArgument(field, f"its pictures have more than {most} pixels together: send fewer or smaller ones")


def _tensor_of(field: str) -> PictureTensor:
    """The tensor with the picture of a field."""
    if field.startswith("controlnets[") or field.endswith("mask_url"):
        return "CONTROLS"
    return "IMAGE_PROMPTS" if field.startswith("ip_adapter[") else "PICTURES"


def _picture(field: str, url: str, context: PrepareContext) -> Pixels:
    context.check_cancelled()
    data = context.files.image(field, url, context.request_files)
    try:
        return decode_image(data, context.settings.max_pixels, context.check_cancelled)
    except ImageError as error:
        raise InvalidArgument(field, str(error)) from error
