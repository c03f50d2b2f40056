"""The parity gate passes what computes as torch does, and refuses the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx
import pytest

from export.errors import ExportError
from export.gate import check_parity
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.manifest import LowRankMode
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import NETWORKS


def _silent(_: str) -> None:
    """Shows no phase."""


IN_EACH_TEST = ("sd15 unet", "sdxl text_encoder_2")  # the others run in `make verify`


@pytest.mark.parametrize(
    "name", [name if name in IN_EACH_TEST else pytest.param(name, marks=pytest.mark.verify) for name in NETWORKS]
)
def test_the_graphs_of_all_networks_pass(graphs: Graphs, name: str) -> None:
    modes: tuple[LowRankMode, ...] = ("none", "linear")
    check_parity(graphs.network(name).architecture, [graphs.artifact(name, mode) for mode in modes], _silent)


def _rename_inputs(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Let all nodes read other tensors."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def _swapped(graph: onnx.GraphProto) -> None:
    """Two layers with each other's weights."""
    first, second, *_ = (tensor for tensor in graph.initializer if tensor.name.endswith("ff.net.2.bias"))
    assert first.dims == second.dims
    _rename_inputs(graph, {first.name: second.name, second.name: first.name})


def _other_epsilon(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 0.05


def _damaged(artifact: Artifact, damage: Callable[[onnx.GraphProto], None]) -> Artifact:
    model = onnx.load_from_string(artifact.graph)
    damage(model.graph)
    return replace(artifact, graph=model.SerializeToString())


@pytest.mark.parametrize("damage", [_swapped, _other_epsilon])
def test_a_graph_that_computes_something_else_is_refused(
    graphs: Graphs, damage: Callable[[onnx.GraphProto], None]
) -> None:
    artifact = _damaged(graphs.artifact("sd15 unet", "none"), damage)
    with pytest.raises(ExportError, match=r"the graph differs from torch: prediction by .* with base weights"):
        check_parity(graphs.network("sd15 unet").architecture, [artifact], _silent)


def test_a_lora_at_the_wrong_layer_is_refused(graphs: Graphs) -> None:
    def swap(graph: onnx.GraphProto) -> None:
        names = [value.name for value in graph.input if value.name.endswith("to_q.lora_b")]
        shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) for value in graph.input
        }
        first, second = next(
            (one, other) for one in names for other in names if one < other and shapes[one] == shapes[other]
        )
        _rename_inputs(graph, {first: second, second: first})

    artifact = _damaged(graphs.artifact("sd15 unet", "linear"), swap)
    with pytest.raises(ExportError, match="with a LoRA"):
        check_parity(graphs.network("sd15 unet").architecture, [artifact], _silent)
