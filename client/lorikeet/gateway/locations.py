"""Dotted locations of fields (`loras[1].scale`), and the errors of Triton that begin with one."""

from __future__ import annotations

import re

from lorikeet.schema import ImageToImageInput

_PART = re.compile(r"([A-Za-z_]\w*)|\[(\d+)\]")
_ERROR = re.compile(r"^([a-z_]\w*(?:\[\d+\]|\.\w+)*): ")


def split_location(dotted: str) -> list[str | int]:
    """`loras[1].scale` as ["loras", 1, "scale"]."""
    return [name or int(index) for name, index in _PART.findall(dotted)]


def leading_location(message: str) -> tuple[list[str | int], str]:
    """The field with which an error message begins, and the rest; no field, and all, where it names none."""
    found = _ERROR.match(message)
    parts = split_location(found[1]) if found else []
    if found is None or parts[0] not in ImageToImageInput.model_fields:
        return [], message
    return parts, message[found.end() :]
