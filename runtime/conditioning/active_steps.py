"""The steps in which a ControlNet acts. Importing this imports no torch."""

from __future__ import annotations


def acts_in(step: int, steps: int, start: float, end: float) -> bool:
    """Whether it acts in step `step`, from 0, of `steps`, as diffusers' `control_guidance_start` and `_end` say."""
    return step / steps >= start and (step + 1) / steps <= end
