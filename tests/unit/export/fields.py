"""Inputs of the exported graphs from the fields of a batch, as an engine makes them. Absent fields get zero size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from runtime.artifacts.flat_fields import flatten
from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.networks.ip_masks import adapter_masks

Tensors = dict[str, torch.Tensor]


def graph_inputs(manifest: Manifest, fields: Mapping[str, Any], low_rank: Mapping[str, torch.Tensor]) -> Tensors:
    """All inputs of a graph. `fields`: of a network, with a batch axis. `low_rank`: the low-rank inputs, if any."""
    given = {name: value for name, value in fields.items() if value is not None}
    rows = len(next(iter(given.values())))
    if "concat" in given:
        given["latent"] = torch.cat([given["latent"], given.pop("concat")], dim=1)
    if "ip_masks" in given:
        index = given.pop("ip_mask_index")
        given["ip_masks"] = tuple(adapter_masks(masks, index) for masks in given["ip_masks"])
    adapters = given["ip_k"].shape[1] if "ip_k" in given else 0
    found = {**flatten(given), **low_rank}
    sizes = {"rows": rows, "adapters": adapters, "text_length": 77, "residual_rows": 1, "low_rank_rows": 1}
    return {tensor.name: found.get(tensor.name, _absent(tensor, sizes)) for tensor in manifest.inputs}


def _absent(tensor: GraphTensor, sizes: Mapping[str, int]) -> torch.Tensor:
    """An input that changes nothing: 1 for the whole picture, else 0; size 0 for ranks, and 1 for broadcast axes."""
    shape = [
        axis if isinstance(axis, int) else 0 if axis.endswith(".rank") else sizes.get(axis, 1) for axis in tensor.axes
    ]
    return torch.ones(shape) if tensor.name.startswith("ip_mask") else torch.zeros(shape)
