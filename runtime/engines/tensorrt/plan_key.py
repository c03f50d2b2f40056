"""Which plan serves an architecture."""

from __future__ import annotations

from typing import get_args

import torch

from runtime.artifacts.manifest import low_rank_modes
from runtime.artifacts.plan_manifest import PlanKey, Precision
from runtime.engines.placement import safe_dtype
from runtime.networks.architecture import Architecture


def plan_key(architecture: Architecture, dtype: torch.dtype) -> PlanKey:
    """The plan with low-rank inputs, if LoRAs change the network; in float32, if the network overflows in `dtype`."""
    mode = "linear" if "linear" in low_rank_modes(architecture.kind) else "none"
    found = str(safe_dtype(architecture, dtype)).removeprefix("torch.")
    precision: Precision = next(known for known in get_args(Precision) if known == found)
    return PlanKey(kind=architecture.kind, architecture=architecture.digest, low_rank=mode, precision=precision)
