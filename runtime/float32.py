"""The range of float32. Importing this takes no torch."""

from __future__ import annotations

import numpy as np

_MAX = float(np.finfo(np.float32).max)


def is_finite_in_float32(number: float) -> bool:
    """Whether the absolute value of a number is at most float32's largest. NaN and infinity are not."""
    return abs(number) <= _MAX
