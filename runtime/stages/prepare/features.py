"""What of the API this server does not do yet: each such field answers so, instead of being ignored."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.stage_errors import InvalidArgument

# Fields whose every value but the default is still to come.
_TO_COME = (
    "prompt_weighting",
    "embeddings",
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


def check_available(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for the first field whose value asks for something that is still to come."""
    for name in _TO_COME:
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise _to_come(name)


def check_fits(request: ImageToImageInput, width: int, height: int) -> None:
    """Raises InvalidArgument for what is still to come, given the picture's size in pixels."""
    for name, side in (("tile_width", width), ("tile_height", height)):
        if getattr(request, name) < side:
            raise InvalidArgument(name, f"tiles smaller than the picture ({side} pixels) are not available yet")


def _to_come(field: str) -> InvalidArgument:
    return InvalidArgument(field, "not available yet")
