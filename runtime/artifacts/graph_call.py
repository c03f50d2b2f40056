"""The sizes of a graph's inputs in a call."""

from __future__ import annotations

from typing import NamedTuple

from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.networks.architecture import Architecture
from runtime.networks.level_size import level_size


class GraphCall(NamedTuple):
    """The sizes of a call: rows, the latents' height and width, chunks of text, IP-Adapters, the tokens of each, and
    the rank of low-rank inputs.

    With adapters, the call has ControlNet residuals too. With 0 chunks, an adapter's tokens are the text (InstantID).
    """

    rows: int
    height: int
    width: int
    chunks: int
    adapters: int
    tokens: int = 4
    rank: int = 0


def axis_size(axis: int | str, architecture: Architecture, call: GraphCall) -> int:
    """The size of an axis in a call. `export/axes.py` lists the names."""
    if isinstance(axis, int):
        return axis
    if axis.endswith(".rank"):
        return call.rank
    if axis in ("rows", "low_rank_rows"):
        return call.rows
    if axis == "text_length":
        return MAX_TOKENS * call.chunks or call.tokens
    if axis == "adapters":
        return call.adapters
    if axis in ("ip_tokens", "image_tokens"):
        return call.tokens
    if axis.startswith("residual_") and not call.adapters:
        return 1
    return _picture_size(axis.removeprefix("residual_"), architecture, call)


def _picture_size(axis: str, architecture: Architecture, call: GraphCall) -> int:
    """`rows`, `height`, `width`, `pixel_height` and the like, `height_<level>` and the like, `ip_queries_<level>`."""
    if axis == "rows":
        return call.rows
    stem, _, level = axis.rpartition("_")
    if level.isdigit():
        padding = int(architecture.options.get("downsample_padding", 1))
        height, width = (level_size(size, int(level), padding) for size in (call.height, call.width))
        return height * width if stem == "ip_queries" else height if stem == "height" else width
    factor = 1 if not stem else pixels_per_latent(stem, architecture)
    return factor * (call.height if level == "height" else call.width)


def pixels_per_latent(prefix: str, architecture: Architecture) -> int:
    """Along each axis: of the VAE (`pixel`), or of a ControlNet's condition (`condition`)."""
    levels = {"pixel": "block_out_channels", "condition": "conditioning_embedding_out_channels"}[prefix]
    return int(2 ** (len(architecture.options[levels]) - 1))
