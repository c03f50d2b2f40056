"""The parity gate: before graphs are published, OpenVINO must compute with them what torch computes.

The weights are random. The calls have the smallest sizes and odd ones, with all optional fields and without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from export.errors import ExportError
from export.gate_inputs import CALLS, flat_inputs
from export.gate_weights import Weights, expected_outputs, merged, random_lora, random_weights
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.graph_call import GraphCall
from runtime.artifacts.manifest import Manifest
from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.compiler import Compiler
from runtime.engines.openvino.first_call import first_inputs
from runtime.engines.openvino.graph import Graph
from runtime.networks.architecture import Architecture

TOLERANCE = 1e-3  # of each output's standard deviation; float32 sums of two libraries differ by about 1e-5


@torch.inference_mode()
def check_parity(architecture: Architecture, artifacts: Sequence[Artifact], show: Callable[[str], None]) -> None:
    """Raises ExportError when a graph computes something else than the network.

    Base weights, then a random LoRA, then the base weights again, whose bytes must not have changed.
    """
    base = random_weights(architecture)
    for artifact in artifacts:
        show(f"compares the graph ({artifact.manifest.low_rank}) with torch")
        graph = Graph(artifact)
        compiler = Compiler(torch.float32, torch.get_num_threads())
        first = first_inputs(artifact.manifest, architecture)
        compiled = Compiled(compiler.compile(graph.bind(base)), artifact.manifest, {}, first, None)
        loras = random_lora(artifact.manifest)
        for call in CALLS:
            _check_call(architecture, artifact.manifest, compiled, base, loras, call)


def _check_call(
    architecture: Architecture,
    manifest: Manifest,
    compiled: Compiled,
    base: Weights,
    loras: Weights,
    call: GraphCall,
) -> None:
    inputs = flat_inputs(manifest, architecture, call)
    first = compiled.run(inputs)
    _compare(first, expected_outputs(architecture, manifest, base, inputs), f"{call} with base weights")
    if loras:
        rows = {name: value.expand(call.rows, *value.shape).contiguous() for name, value in loras.items()}
        expected = expected_outputs(architecture, manifest, merged(base, loras), inputs)
        _compare(compiled.run(inputs | rows), expected, f"{call} with a LoRA")
        again = compiled.run(inputs)
        if any(not torch.equal(again[name], value) for name, value in first.items()):
            raise ExportError(f"the graph's base weights are not the same after a LoRA ({call})")


def _compare(found: Weights, expected: Weights, what: str) -> None:
    for name, value in expected.items():
        error = float((found[name] - value).abs().max() / value.std())
        if not error < TOLERANCE:
            raise ExportError(f"the graph differs from torch: {name} by {error:.1e} of its spread, {what}")
