"""How far apart two arrays are."""

import numpy as np
from numpy.typing import ArrayLike


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """The largest difference of two arrays of one shape, in standard deviations of `expected`.

    NaN if either holds one.
    """
    left, right = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"shapes differ: {left.shape} and {right.shape}")
    return float(np.abs(left - right).max() / right.std())
