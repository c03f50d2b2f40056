"""Random inputs of a graph, of the sizes that the parity gate tries."""

from __future__ import annotations

from typing import NamedTuple

import torch

from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.networks.architecture import Architecture
from runtime.networks.ip_masks import level_size

_TRAIN_TIMESTEPS = 1000


class GateCall(NamedTuple):
    """The sizes of a call: rows, the latents' height and width, chunks of text, IP-Adapters, the tokens of each, and
    the rank of low-rank inputs.

    With adapters, the call has ControlNet residuals too.
    """

    rows: int
    height: int
    width: int
    chunks: int
    adapters: int
    tokens: int = 4
    rank: int = 0


CALLS = (GateCall(1, 8, 8, 1, 0), GateCall(2, 13, 9, 2, 2))


def flat_inputs(manifest: Manifest, architecture: Architecture, call: GateCall) -> dict[str, torch.Tensor]:
    """All inputs of the graph. Low-rank inputs have the call's rank, which is 0 in `CALLS`."""
    generator = torch.Generator().manual_seed(2)
    return {
        tensor.name: _value(tensor, [axis_size(axis, architecture, call) for axis in tensor.axes], call, generator)
        for tensor in manifest.inputs
    }


def _value(tensor: GraphTensor, shape: list[int], call: GateCall, generator: torch.Generator) -> torch.Tensor:
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


def axis_size(axis: int | str, architecture: Architecture, call: GateCall) -> int:
    """The size of an axis in a call. `export/axes.py` lists the names."""
    if isinstance(axis, int):
        return axis
    if axis.endswith(".rank"):
        return call.rank
    if axis in ("rows", "low_rank_rows"):
        return call.rows
    if axis == "text_length":
        return MAX_TOKENS * call.chunks
    if axis in ("adapters", "ip_tokens"):
        return call.adapters if axis == "adapters" else call.tokens
    if axis.startswith("residual_") and not call.adapters:
        return 1
    return _picture_size(axis.removeprefix("residual_"), architecture, call)


def _picture_size(axis: str, architecture: Architecture, call: GateCall) -> int:
    """`rows`, `height`, `width`, `pixel_height` and the like, `height_<level>` and the like, `ip_queries_<level>`."""
    if axis == "rows":
        return call.rows
    stem, _, level = axis.rpartition("_")
    if level.isdigit():
        padding = int(architecture.options.get("downsample_padding", 1))
        height, width = (level_size(size, int(level), padding) for size in (call.height, call.width))
        return height * width if stem == "ip_queries" else height if stem == "height" else width
    factor = 1 if not stem else _pixels(stem, architecture)
    return factor * (call.height if level == "height" else call.width)


def _pixels(prefix: str, architecture: Architecture) -> int:
    """Pixels per latent: of the VAE, or of a ControlNet's condition."""
    levels = {"pixel": "block_out_channels", "condition": "conditioning_embedding_out_channels"}[prefix]
    return int(2 ** (len(architecture.options[levels]) - 1))
