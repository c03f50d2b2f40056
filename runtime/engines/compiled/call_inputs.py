"""The inputs of a graph, from the fields of a batch. A field that the rows lack gets a size that costs nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runtime.artifacts.flat_fields import flatten
from runtime.artifacts.graph_call import pixels_per_latent
from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.engines.engine import CallSizes, Field
from runtime.networks.architecture import Architecture
from runtime.networks.ip_masks import adapter_masks

_MASK = "ip_mask_"


def call_inputs(
    manifest: Manifest,
    fields: Mapping[str, Field],
    low_rank: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """All inputs of a call, on the device of `fields`.

    fields: of a network, each with a row axis. low_rank: the low-rank inputs in use.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    first = next(iter(given.values()))
    first = first[0] if isinstance(first, tuple) else first
    assert isinstance(first, torch.Tensor)
    rows, device = len(first), first.device
    concat, masks, index = (given.pop(name, None) for name in ("concat", "ip_masks", "ip_mask_index"))
    latent = given.get("latent")
    if isinstance(concat, torch.Tensor) and isinstance(latent, torch.Tensor):
        given["latent"] = torch.cat([latent, concat], dim=1)
    if isinstance(masks, tuple) and isinstance(index, torch.Tensor):
        levels = [int(tensor.name.removeprefix(_MASK)) for tensor in manifest.inputs if tensor.name.startswith(_MASK)]
        given |= {f"{_MASK}{level}": adapter_masks(masks[level], index) for level in levels}
    sizes = {"rows": rows, "low_rank_rows": rows, "adapters": _adapters(given)}
    found = {**flatten(given), **low_rank}
    return {
        tensor.name: found[tensor.name] if tensor.name in found else _absent(tensor, sizes, device)
        for tensor in manifest.inputs
    }


def _adapters(fields: Mapping[str, Field]) -> int:
    keys = fields.get("ip_k")
    return keys.shape[1] if isinstance(keys, torch.Tensor) else 0


def _absent(tensor: GraphTensor, sizes: Mapping[str, int], device: torch.device) -> torch.Tensor:
    """An input that changes nothing: a mask of 1, else 0. Ranks are 0, and axes that are broadcast are 1."""
    shape = [
        axis if isinstance(axis, int) else 0 if axis.endswith(".rank") else sizes.get(axis, 1) for axis in tensor.axes
    ]
    fill = torch.ones if tensor.name.startswith(_MASK) else torch.zeros
    return fill(shape, device=device)


def fixed_shapes(manifest: Manifest, architecture: Architecture, sizes: CallSizes) -> dict[str, list[int]]:
    """The shapes of all inputs in calls of these sizes whose rows have no optional fields.

    -1 is any size: of a rank, and of the axes that are 0. In bfloat16, OpenVINO compiles no fixed size of 0 (2026.4.1:
    "object is not initialized").
    """
    known = {"rows": sizes.rows, "low_rank_rows": sizes.rows, "text_length": MAX_TOKENS, "adapters": -1}
    known |= {"height": sizes.height, "width": sizes.width}
    if architecture.kind in ("vae_encoder", "vae_decoder"):
        factor = pixels_per_latent("pixel", architecture)
        known |= {"pixel_height": factor * sizes.height, "pixel_width": factor * sizes.width}
    return {
        tensor.name: [
            axis if isinstance(axis, int) else -1 if axis.endswith(".rank") else known.get(axis, 1)
            for axis in tensor.axes
        ]
        for tensor in manifest.inputs
    }
