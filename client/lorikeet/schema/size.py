"""The size of an image that is generated without an init image."""

from enum import Enum
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from lorikeet.schema.base import Int, Model


class ImageSizePreset(str, Enum):
    """The named sizes of the API."""

    SQUARE_HD = "square_hd"
    SQUARE = "square"
    PORTRAIT_4_3 = "portrait_4_3"
    PORTRAIT_16_9 = "portrait_16_9"
    LANDSCAPE_4_3 = "landscape_4_3"
    LANDSCAPE_16_9 = "landscape_16_9"


class ImageSize(Model):
    """A size in pixels."""

    width: Int = Field(default=512, ge=1, le=14142, description="Width in pixels.")
    height: Int = Field(default=512, ge=1, le=14142, description="Height in pixels.")


_PRESET_PIXELS = {
    ImageSizePreset.SQUARE_HD: (1024, 1024),
    ImageSizePreset.SQUARE: (512, 512),
    ImageSizePreset.PORTRAIT_4_3: (768, 1024),
    ImageSizePreset.PORTRAIT_16_9: (576, 1024),
    ImageSizePreset.LANDSCAPE_4_3: (1024, 768),
    ImageSizePreset.LANDSCAPE_16_9: (1024, 576),
}


def size_in_pixels(size: ImageSize | ImageSizePreset) -> tuple[int, int]:
    """(width, height) in pixels."""
    return _PRESET_PIXELS[size] if isinstance(size, ImageSizePreset) else (size.width, size.height)


def _kind(value: object) -> str:
    return "<preset>" if isinstance(value, str) else "<size>"


# The value's type selects the branch, so that an error describes the intended branch only.
SizeOrPreset = Annotated[
    Annotated[ImageSize, Tag("<size>")] | Annotated[ImageSizePreset, Tag("<preset>")], Discriminator(_kind)
]
