"""`clip_skip`: at most as many layers as the text encoders have."""

from __future__ import annotations

import re

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.stage_errors import InvalidArgument

_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")


def check_on(request: ImageToImageInput, checkpoint: Checkpoint) -> None:
    """Raises InvalidArgument for more layers than the smallest text encoder can skip."""
    skipped_anyway = 1 if checkpoint.kind == "sdxl" else 0  # SDXL takes the last layer but one
    layers = min(_layers(encoder) for encoder in checkpoint.text_encoders)
    most = max(layers - skipped_anyway, 0)
    if request.clip_skip > most:
        raise InvalidArgument("clip_skip", f"at most {most}: a text encoder has {layers} layers")


def _layers(encoder: Component) -> int:
    return len({found[1] for found in map(_LAYER.match, encoder.shapes) if found})
