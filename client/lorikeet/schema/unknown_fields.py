"""Warns of the fields of a message that no schema names."""

from lorikeet.protocol.shorten import shorten
from lorikeet.schema.base import Model
from lorikeet.schema.nearest import nearest
from lorikeet.schema.walk import walk_models

MAX_LISTED = 16
_CUTOFF = 0.75  # "width" is too far from "tile_width", "strength" is near "noise_strength"


def unknown_field_warnings(model: Model) -> list[str]:
    """A line for each unknown field, with the known one that it resembles; the last line counts those left out."""
    found = [(prefix, name, part) for prefix, part in walk_models(model) for name in part.model_extra or ()]
    lines = [_warning(*one) for one in found[:MAX_LISTED]]
    left_out = len(found) - MAX_LISTED
    return [*lines, f"{left_out} more unknown fields, ignored"] if left_out > 0 else lines


def _warning(prefix: str, name: str, part: Model) -> str:
    text = f"{prefix}{shorten(name, 100)}: unknown field, ignored"
    known = nearest(name, type(part).model_fields, _CUTOFF)
    return f"{text}; did you mean {known}?" if known else text
