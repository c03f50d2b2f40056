"""What a sampler or a checkpoint cannot do: such a request is refused, with the field that asks for it."""

from __future__ import annotations

import re

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.schedulers.schedule_fields import check_sampler, check_schedule_fields, requested_sampler
from runtime.stage_errors import InvalidArgument

_MAX_LORAS = 100
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")


def check_limits_of_sampler(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for what the sampler that is named can do on no checkpoint. Nothing is fetched yet."""
    if request.scheduler is not None:
        check_sampler(request, {})


def check_number_of_loras(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for more LoRAs than anybody mixes: all other requests wait while one's are merged."""
    if len(request.loras) > _MAX_LORAS:
        raise InvalidArgument("loras", f"at most {_MAX_LORAS} for one request, not {len(request.loras)}")


def check_limits_of_checkpoint(request: ImageToImageInput, checkpoint: Checkpoint) -> None:
    """Raises InvalidArgument for what goes beyond the checkpoint's training or its text encoders' layers."""
    check_schedule_fields(request, checkpoint.scheduler, has_image=request.image_url is not None)
    # SDXL takes the last but one layer to begin with.
    first = 1 if checkpoint.kind == "sdxl" else 0
    fewest = min(_layers(encoder) for encoder in checkpoint.text_encoders)
    if request.clip_skip > max(fewest - first, 0):
        raise InvalidArgument("clip_skip", f"at most {max(fewest - first, 0)}: a text encoder has {fewest} layers")


def without_effect(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    """What of the request its sampler takes no notice of, as warnings."""
    sampler = requested_sampler(request, checkpoint.scheduler)
    return [f"eta: {sampler.name} takes none, ignored"] if request.eta and not sampler.takes_eta else []


def _layers(encoder: Component) -> int:
    return len({found[1] for found in map(_LAYER.match, encoder.shapes) if found})
