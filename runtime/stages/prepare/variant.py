"""Variants of weight files, such as `fp16`: a part of their names."""

from __future__ import annotations

import re

from runtime.stage_errors import InvalidArgument

_VARIANT = re.compile(r"[A-Za-z0-9_-]{1,32}")


def check_variant(field: str, variant: str | None) -> None:
    """Raises InvalidArgument for a variant that cannot be part of a file name."""
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise InvalidArgument(field, "may contain only letters, digits, '_' and '-', at most 32")
