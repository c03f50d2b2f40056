"""The pictures of a request: fetched, decoded, and packed into one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorikeet.schema import ImageToImageInput
from runtime.files.image_codec import ImageError, Pixels, decode_image
from runtime.plan import INIT_IMAGE, PicturePlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Array
from runtime.stages.prepare.context import PrepareContext


@dataclass(frozen=True)
class Pictures:
    """The decoded pictures RGB [H, W, 3] by the field that named them."""

    pixels: dict[str, Pixels]

    @property
    def plans(self) -> tuple[PicturePlan, ...]:
        """Their places in `tensor`."""
        found, offset = [], 0
        for field, pixels in self.pixels.items():
            found.append(PicturePlan(field=field, height=len(pixels), width=pixels.shape[1], offset=offset))
            offset += found[-1].nbytes
        return tuple(found)

    @property
    def tensor(self) -> Array:
        """PICTURES UINT8 [bytes]: all of them, one after the other."""
        return np.concatenate([np.zeros(0, np.uint8), *(pixels.reshape(-1) for pixels in self.pixels.values())])


def resolve(request: ImageToImageInput, context: PrepareContext) -> Pictures:
    """Raises InvalidArgument that names the field of a picture that cannot be fetched or decoded, and what
    `context.check_cancelled` raises."""
    named = {INIT_IMAGE: request.image_url}
    return Pictures({field: _picture(field, url, context) for field, url in named.items() if url is not None})


def _picture(field: str, url: str, context: PrepareContext) -> Pixels:
    context.check_cancelled()
    data = context.files.image(field, url, context.request_files)
    try:
        return decode_image(data, context.settings.max_pixels, context.check_cancelled)
    except ImageError as error:
        raise InvalidArgument(field, str(error)) from error
