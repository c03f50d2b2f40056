"""The first call of a compiled model, before any request's.

OpenVINO keeps what it decides in a model's first call. When that call has a picture of 64 px, the attention of SD 1.5's
deepest level has one query, and OpenVINO takes its transpositions for copies: all later calls of other sizes compute
wrong values (seen with 2026.4). In this first call no size is 1 or 0.
"""

from __future__ import annotations

import torch

from runtime.artifacts.graph_call import GraphCall, axis_size
from runtime.artifacts.manifest import Manifest
from runtime.networks.architecture import Architecture

_UNETS = ("unet", "controlnet")  # networks that attend at each resolution level; others do at that of the latents


def first_inputs(manifest: Manifest, architecture: Architecture) -> dict[str, torch.Tensor]:
    """All inputs of a graph, as small as can be with two places along each axis of each resolution level."""
    levels = len(architecture.options["block_out_channels"]) if manifest.kind in _UNETS else 1
    side = 2**levels
    call = GraphCall(rows=2, height=side, width=side, chunks=1, adapters=2, tokens=2, rank=2)
    return {
        tensor.name: torch.zeros(
            [axis_size(axis, architecture, call) for axis in tensor.axes], dtype=getattr(torch, tensor.dtype)
        )
        for tensor in manifest.inputs
    }
