"""What of the API this server does not do yet: each such field answers so, instead of being ignored."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput, SchedulerName
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.errors import InvalidArgument

_SCHEDULERS = (SchedulerName.EULER, SchedulerName.DPMPP_2M_KARRAS, SchedulerName.DDIM)
# Fields whose every value but the default is still to come.
_TO_COME = (
    "unet_name",
    "variant",
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
    "clip_skip",
    "rescale_betas_snr_zero",
    "enable_safety_checker",
    "eta",
)


def check_available(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for the first field whose value asks for something that is still to come."""
    for name in _TO_COME:
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise _to_come(name)
    for name in ("timesteps", "sigmas"):
        if getattr(request, name).is_custom:
            raise _to_come(name)
    if request.scheduler is not None and request.scheduler not in _SCHEDULERS:
        known = ", ".join(scheduler.value for scheduler in _SCHEDULERS)
        raise InvalidArgument("scheduler", f"{request.scheduler.value!r} is not available yet; {known} are")


def check_fits(request: ImageToImageInput, checkpoint: Checkpoint, width: int, height: int) -> None:
    """Raises InvalidArgument for what is still to come, given the checkpoint and the picture's size in pixels."""
    own = checkpoint.scheduler.get("prediction_type", "epsilon")
    if request.prediction_type not in (None, own):
        raise InvalidArgument("prediction_type", f"another one than the checkpoint's own ({own}) is not available yet")
    for name, side in (("tile_width", width), ("tile_height", height)):
        if getattr(request, name) < side:
            raise InvalidArgument(name, f"tiles smaller than the picture ({side} pixels) are not available yet")


def _to_come(field: str) -> InvalidArgument:
    return InvalidArgument(field, "not available yet")
