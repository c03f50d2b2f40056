"""Refuses fields of the API that this server does not support yet. Otherwise they would be ignored silently."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.size import Size

# Only the defaults of these fields are supported.
_UNAVAILABLE = (
    "controlnets",
    "controlnet_guess_mode",
    "ip_adapter",
    "image_encoder_path",
    "image_encoder_subfolder",
    "ic_light_model_url",
    "ic_light_model_background_image_url",
    "ic_light_image_url",
    "enable_safety_checker",
)


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for the first field whose value this server does not support yet."""
    for name in _UNAVAILABLE:
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise InvalidArgument(name, "not available yet")


def check_tiles(request: ImageToImageInput, size: Size) -> None:
    """Raises InvalidArgument for tiles that are smaller than the picture."""
    for name, side in (("tile_width", size.width), ("tile_height", size.height)):
        if getattr(request, name) < side:
            raise InvalidArgument(name, f"tiles smaller than the picture ({side} pixels) are not available yet")
