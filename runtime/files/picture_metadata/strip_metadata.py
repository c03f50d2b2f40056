"""Removes the metadata of a picture of any format. All walks are linear in the file's length."""

from __future__ import annotations

from runtime.files.picture_metadata import gif, jpeg, png, tiff, webp
from runtime.files.picture_metadata.orientation import UPRIGHT
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StrippedPicture


def strip_metadata(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """The picture without metadata; other files as they are. Raises StripError, and what `check_cancelled` raises."""
    if data.startswith(png.MAGIC):
        return png.strip(data, check_cancelled)
    if data.startswith(jpeg.MAGIC):
        return jpeg.strip(data, check_cancelled)
    if data.startswith(gif.MAGIC):
        return gif.strip(data, check_cancelled)
    if data.startswith(tiff.MAGIC):
        return tiff.strip(data, check_cancelled)
    if webp.is_webp(data):
        return webp.strip(data, check_cancelled)
    return StrippedPicture(data, UPRIGHT)
