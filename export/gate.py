"""The parity gate: before graphs are published, OpenVINO must compute with them what torch computes.

The weights are random. The calls have the smallest sizes and odd ones, with all optional fields and without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from export.errors import ExportError
from export.flat import FlatNetwork, remove_token_embedding
from export.gate_inputs import CALLS, GateCall, flat_inputs
from export.low_rank import LowRankInputs
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.manifest import Manifest
from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.compiler import Compiler
from runtime.engines.openvino.graph import Graph
from runtime.networks.architecture import Architecture
from runtime.networks.build import build, parameters

TOLERANCE = 1e-3  # of each output's standard deviation; float32 sums of two libraries differ by about 1e-5
_RANK, _STRENGTH = 4, 0.3
Weights = Mapping[str, torch.Tensor]


@torch.inference_mode()
def check_parity(architecture: Architecture, artifacts: Sequence[Artifact], show: Callable[[str], None]) -> None:
    """Raises ExportError when a graph computes something else than the network.

    Base weights, then a random LoRA, then the base weights again, whose bytes must not have changed.
    """
    base = _random_weights(architecture)
    for artifact in artifacts:
        show(f"compares the graph ({artifact.manifest.low_rank}) with torch")
        graph = Graph(artifact)
        compiler = Compiler(torch.float32, torch.get_num_threads())
        compiled = Compiled(compiler.compile(graph.bind(base)), artifact.manifest, {})
        loras = _random_lora(artifact.manifest)
        for call in CALLS:
            _check_call(architecture, artifact.manifest, compiled, base, loras, call)


def _check_call(
    architecture: Architecture,
    manifest: Manifest,
    compiled: Compiled,
    base: Weights,
    loras: Weights,
    call: GateCall,
) -> None:
    inputs = flat_inputs(manifest, architecture, call)
    first = compiled.run(inputs)
    _compare(first, _expected(architecture, manifest, base, inputs), f"{call} with base weights")
    if loras:
        rows = {name: value.expand(call.rows, *value.shape).contiguous() for name, value in loras.items()}
        expected = _expected(architecture, manifest, _merged(base, loras), inputs)
        _compare(compiled.run(inputs | rows), expected, f"{call} with a LoRA")
        again = compiled.run(inputs)
        if any(not torch.equal(again[name], value) for name, value in first.items()):
            raise ExportError(f"the graph's base weights are not the same after a LoRA ({call})")


def _compare(found: Weights, expected: Weights, what: str) -> None:
    for name, value in expected.items():
        error = float((found[name] - value).abs().max() / value.std())
        if not error < TOLERANCE:
            raise ExportError(f"the graph differs from torch: {name} by {error:.1e} of its spread, {what}")


def _expected(architecture: Architecture, manifest: Manifest, weights: Weights, inputs: Weights) -> Weights:
    """What torch computes with these weights."""
    network = build(architecture)
    remove_token_embedding(architecture.kind, network)
    for name, (module, attribute, _) in parameters(network).items():
        module._parameters[attribute] = nn.Parameter(weights[name], requires_grad=False)
    own = [tensor.name for tensor in manifest.inputs if not _is_low_rank(tensor.name)]
    outputs = [tensor.name for tensor in manifest.outputs]
    flat = FlatNetwork(architecture.kind, network, LowRankInputs(network.weights, "none"), own, outputs)
    values: Any = flat(*(inputs[name] for name in own))
    return dict(zip(outputs, values, strict=True))


def _random_weights(architecture: Architecture) -> dict[str, torch.Tensor]:
    """Weights that keep the spread of activations: matrices of 1 / sqrt(fan in), norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, parameter in parameters(build(architecture)).items():
        shape = parameter.shape
        noise = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith("weight")
        found[name] = noise / shape[1:].numel() ** 0.5 if len(shape) > 1 else 0.1 * noise + is_norm
    return found


def _random_lora(manifest: Manifest) -> dict[str, torch.Tensor]:
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


def _merged(base: Weights, loras: Weights) -> dict[str, torch.Tensor]:
    found = dict(base)
    for name, down in loras.items():
        layer, _, part = name.rpartition(".")
        if part == "lora_a":
            weight = base[f"{layer}.weight"]
            change = loras[f"{layer}.lora_b"] @ down.flatten(1)
            if down.dim() == 3:  # [rank, taps, in]
                change = change.unflatten(1, down.shape[1:]).transpose(1, 2)
            found[f"{layer}.weight"] = weight + change.reshape(weight.shape)
    return found


def _is_low_rank(name: str) -> bool:
    return name.endswith((".lora_a", ".lora_b"))
