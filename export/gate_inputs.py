"""Random inputs of a graph, of the sizes that the parity gate tries."""

from __future__ import annotations

import torch

from runtime.artifacts.graph_call import GraphCall, axis_size
from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.networks.architecture import Architecture

_TRAIN_TIMESTEPS = 1000
# The first is the smallest picture: at the deepest of a UNet's levels it has one place.
CALLS = (GraphCall(1, 8, 8, 1, 0), GraphCall(2, 13, 9, 2, 2))


def flat_inputs(manifest: Manifest, architecture: Architecture, call: GraphCall) -> dict[str, torch.Tensor]:
    """All inputs of the graph. Low-rank inputs have the call's rank, which is 0 in `CALLS`."""
    generator = torch.Generator().manual_seed(2)
    return {
        tensor.name: _value(tensor, [axis_size(axis, architecture, call) for axis in tensor.axes], call, generator)
        for tensor in manifest.inputs
    }


def _value(tensor: GraphTensor, shape: list[int], call: GraphCall, generator: torch.Generator) -> torch.Tensor:
    if tensor.name == "end":
        return torch.randint(MAX_TOKENS, shape, generator=generator)
    if tensor.name == "t":
        return torch.randint(_TRAIN_TIMESTEPS, shape, generator=generator).float()
    noise = torch.randn(shape, generator=generator)
    if tensor.name.startswith("ip_mask"):
        return (noise > 0).float()
    if tensor.name.startswith("residual") and not call.adapters:
        return torch.zeros(shape)
    return noise
