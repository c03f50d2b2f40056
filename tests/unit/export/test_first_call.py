"""A picture follows from its request alone: the size of a server's first picture changes no later one.

OpenVINO keeps what it decides in a model's first call (`runtime/engines/openvino/first_call.py`).
"""

from __future__ import annotations

import pytest
import torch

from export.gate_inputs import flat_inputs
from export.gate_weights import expected_outputs, random_weights
from runtime.artifacts.graph_call import GraphCall
from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.compiler import Compiler
from runtime.engines.openvino.first_call import first_inputs
from runtime.engines.openvino.graph import Graph
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import ALL_NETWORKS, SMALL_UNET

IN_EACH_TEST = (SMALL_UNET, "sd15 vae_decoder", "image_encoder")
NAMES = [name if name in IN_EACH_TEST else pytest.param(name, marks=pytest.mark.verify) for name in ALL_NETWORKS]
# Each begins with another size of 1 or 0, then come larger ones.
SEQUENCES = (
    (GraphCall(1, 2, 2, 1, 0), GraphCall(2, 8, 8, 1, 0), GraphCall(2, 13, 10, 2, 2)),
    (GraphCall(1, 4, 4, 1, 1, tokens=1), GraphCall(1, 13, 10, 1, 0)),
    (GraphCall(2, 3, 5, 2, 1, rank=1), GraphCall(3, 9, 12, 1, 2)),
)
TOLERANCE = 1e-4  # of an output's norm


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_the_first_size_changes_no_later_picture(graphs: Graphs, name: str) -> None:
    artifact, architecture = graphs.artifact(name, "linear"), graphs.network(name).architecture
    manifest, weights, graph = artifact.manifest, random_weights(architecture), Graph(artifact)
    first = first_inputs(manifest, architecture)
    assert all(min(value.shape) > 1 for value in first.values())
    for calls in SEQUENCES:
        compiled = Compiled(Compiler(torch.float32, 1).compile(graph.bind(weights)), manifest, {}, first, None)
        for call in calls:
            inputs = flat_inputs(manifest, architecture, call)
            plain = {key: value if ".lora_" not in key else torch.zeros_like(value) for key, value in inputs.items()}
            found, expected = compiled.run(plain), expected_outputs(architecture, manifest, weights, plain)
            for output, value in expected.items():
                assert (found[output] - value).norm() < TOLERANCE * value.norm(), (output, call)
