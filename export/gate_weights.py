"""Random weights for the parity gates, and what torch computes with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from export.flat import FlatNetwork, remove_token_embedding
from export.low_rank import LowRankInputs
from runtime.artifacts.manifest import Manifest
from runtime.networks.architecture import Architecture
from runtime.networks.build import build, parameters

_RANK, _STRENGTH = 4, 0.3
Weights = Mapping[str, torch.Tensor]


def expected_outputs(architecture: Architecture, manifest: Manifest, weights: Weights, inputs: Weights) -> Weights:
    """What torch computes with these weights, which are float32, on the device of the inputs."""
    network = build(architecture)
    remove_token_embedding(architecture.kind, network)
    for name, (module, attribute, _) in parameters(network).items():
        module._parameters[attribute] = nn.Parameter(weights[name], requires_grad=False)
    own = [tensor.name for tensor in manifest.inputs if not _is_low_rank(tensor.name)]
    outputs = [tensor.name for tensor in manifest.outputs]
    flat = FlatNetwork(architecture.kind, network, LowRankInputs(network.weights, "none"), own, outputs)
    flat.to(inputs[own[0]].device)  # the buffers, which no weight file holds
    values: Any = flat(*(inputs[name] for name in own))
    return dict(zip(outputs, values, strict=True))


def random_weights(architecture: Architecture) -> dict[str, torch.Tensor]:
    """Weights that keep the spread of activations: matrices of 1 / sqrt(fan in), norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, parameter in parameters(build(architecture)).items():
        shape = parameter.shape
        noise = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith("weight")
        found[name] = noise / shape[1:].numel() ** 0.5 if len(shape) > 1 else 0.1 * noise + is_norm
    return found


def random_lora(manifest: Manifest) -> dict[str, torch.Tensor]:
    """The low-rank inputs of all layers, without a row axis."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for tensor in manifest.inputs:
        if _is_low_rank(tensor.name):
            shape = [axis if isinstance(axis, int) else _RANK for axis in tensor.axes[1:]]
            is_down = tensor.name.endswith(".lora_a")
            fan_in = torch.Size(shape).numel() // _RANK if is_down else _RANK
            found[tensor.name] = torch.randn(shape, generator=generator) * (1 if is_down else _STRENGTH) / fan_in**0.5
    return found


def merged(base: Weights, loras: Weights) -> dict[str, torch.Tensor]:
    return {name: merged_weight(name, value, loras) for name, value in base.items()}


def merged_weight(name: str, weight: torch.Tensor, loras: Weights) -> torch.Tensor:
    """A parameter with its layer's low-rank inputs merged, if there are any."""
    layer = name.removesuffix(".weight")
    down = None if layer == name else loras.get(f"{layer}.lora_a")
    if down is None:
        return weight
    change = loras[f"{layer}.lora_b"] @ down.flatten(1)
    if down.dim() == 3:  # [rank, taps, in]
        change = change.reshape(len(change), *down.shape[1:]).transpose(1, 2)
    return weight + change.reshape(weight.shape)


def _is_low_rank(name: str) -> bool:
    return name.endswith((".lora_a", ".lora_b"))
