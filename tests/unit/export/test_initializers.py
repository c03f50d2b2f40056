"""A graph's initializers are the parameters of the network: names, shapes and dtypes, and no values."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from runtime.artifacts.artifact import Artifact
from runtime.artifacts.manifest import GraphTensor, LowRankMode
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import NAMES
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}
_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def _model(artifact: Artifact) -> onnx.ModelProto:
    return onnx.load_from_string(artifact.graph)


@pytest.mark.parametrize("name", NAMES)
def test_the_initializers_are_the_networks_parameters(graphs: Graphs, name: str) -> None:
    artifact, weights = graphs.artifact(name, "linear"), graphs.network(name).weights
    outside = artifact.manifest.outside
    assert outside == ((_EMBEDDING,) if "text_encoder" in name else ())
    found = {tensor.name: tuple(tensor.dims) for tensor in _model(artifact).graph.initializer}
    assert found == {name: tuple(tensor.shape) for name, tensor in weights.items() if name not in outside}
    assert artifact.manifest.initializers == len(found)


@pytest.mark.parametrize(
    ("folder", "part"),
    [("sd15", "unet"), pytest.param("sdxl", "unet", marks=pytest.mark.verify), ("sd2", "text_encoder")],
)
def test_the_names_are_those_of_the_files(graphs: Graphs, tiny: Path, folder: str, part: str) -> None:
    component = {one.name: one for one in read_checkpoint(tiny / folder).components}[part]
    found = {tensor.name for tensor in _model(graphs.artifact(f"{folder} {part}", "linear")).graph.initializer}
    assert found | set(graphs.artifact(f"{folder} {part}", "linear").manifest.outside) == component.shapes.keys()


@pytest.mark.parametrize("low_rank", ["none", "linear", "all"])
def test_low_rank_inputs_change_no_initializer(graphs: Graphs, low_rank: LowRankMode) -> None:
    artifact = graphs.artifact("sd15 unet", low_rank)
    names = {tensor.name for tensor in _model(artifact).graph.initializer}
    assert names == graphs.network("sd15 unet").weights.keys()
    added = {tensor.name.rpartition(".")[0] for tensor in artifact.manifest.inputs if ".lora_" in tensor.name}
    convolutions = {name.removesuffix(".weight") for name in names if _is_spatial(graphs, name)}
    assert added >= convolutions if low_rank == "all" else not added & convolutions
    matrices = {n.removesuffix(".weight") for n in names if graphs.network("sd15 unet").weights[n].dim() >= 2}
    expected = {"none": set(), "linear": matrices - convolutions, "all": matrices}
    assert added == expected[low_rank]


def _is_spatial(graphs: Graphs, name: str) -> bool:
    shape = graphs.network("sd15 unet").weights[name].shape
    return len(shape) == 4 and shape[2:] != (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_has_no_values_and_short_unique_names(graphs: Graphs, name: str) -> None:
    graph = _model(graphs.artifact(name, "linear")).graph
    for tensor in graph.initializer:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL and not tensor.raw_data and not tensor.float_data
        assert tensor.data_type == onnx.TensorProto.FLOAT
    nodes = [node.name for node in graph.node]
    assert len(set(nodes)) == len(nodes) and max(map(len, nodes)) < 32
    inner = {value for node in graph.node for value in node.output} - {value.name for value in graph.output}
    assert max(map(len, inner)) < 8


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_has_the_graphs_inputs_and_outputs(graphs: Graphs, name: str) -> None:
    artifact = graphs.artifact(name, "linear")
    graph, manifest = _model(artifact).graph, artifact.manifest
    assert tuple(map(_described, graph.input)) == manifest.inputs
    assert tuple(map(_described, graph.output)) == manifest.outputs
    assert manifest.architecture == graphs.network(name).architecture.digest
    assert manifest.graph_bytes == len(artifact.graph)
    assert {"torch", "onnx", "diffusers", "transformers"} <= manifest.versions.keys()


def _described(value: onnx.ValueInfoProto) -> GraphTensor:
    tensor_type = value.type.tensor_type
    axes = tuple(dim.dim_param or dim.dim_value for dim in tensor_type.shape.dim)
    return GraphTensor(name=value.name, dtype=_DTYPES[tensor_type.elem_type], axes=axes)
