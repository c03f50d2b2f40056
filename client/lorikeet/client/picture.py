"""A PIL image as the file that a request carries."""

import io

from PIL import Image, ImageOps

from lorikeet.protocol.errors import INVALID_ARG, make_error

_OF_PNG = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
# Modes with the same colours in a form that PNG lacks -> one that it has.
_CONVERTED = {
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"),
    **{"La": "LA", "RGBa": "RGBA", "PA": "RGBA"},
}


def encode(image: Image.Image) -> bytes:
    """A PNG of the image as viewers show it: upright, whatever its orientation tag says.

    Raises InvalidRequest for an image that cannot be read, or whose numbers have no fixed range (modes F and I).
    """
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _CONVERTED:
            upright = upright.convert(_CONVERTED[upright.mode])
            upright.info.pop("icc_profile", None)  # of the earlier mode
    except Exception as error:  # Pillow raises many kinds for a damaged file, which it reads only here
        raise make_error(f"cannot read a PIL image: {error}", INVALID_ARG) from error
    if upright.mode not in _OF_PNG:
        raise make_error(f"cannot send a PIL image of mode {upright.mode}: convert it to RGB", INVALID_ARG)
    buffer = io.BytesIO()
    upright.save(buffer, format="PNG")
    return buffer.getvalue()
