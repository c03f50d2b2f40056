"""Refuses fields of the API that this server does not support yet. Otherwise they would be ignored silently."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.stage_errors import InvalidArgument

# Only the defaults of these fields are supported.
_UNAVAILABLE = (
    "prompt_weighting",
    "embeddings",
)


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for the first field whose value this server does not support yet."""
    for name in _UNAVAILABLE:
        if getattr(request, name) != type(request).model_fields[name].get_default(call_default_factory=True):
            raise InvalidArgument(name, "not available yet")
