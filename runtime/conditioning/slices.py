"""Slices: the latents of a job with ControlNets whose rows are asked for together. Importing this needs no torch.

Residuals of one row are hundreds of times larger than its prediction, so a job does not hold those of all its rows.
"""

from __future__ import annotations

from math import gcd


def slice_latents(block_rows: int, rows_per_latent: int) -> int:
    """The fewest latents whose rows fill whole blocks: only the last call of a step may have empty rows."""
    return block_rows // gcd(block_rows, rows_per_latent)
