"""A graph with low-rank inputs equals the torch network whose weights the same LoRA is merged into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from runtime.artifacts.manifest import GraphTensor, Manifest
from runtime.weights.change import LowRank
from runtime.weights.merge import merge
from tests.unit.export.conftest import Graphs
from tests.unit.export.fields import graph_inputs
from tests.unit.export.networks import TinyNetwork
from tests.unit.export.openvino_graph import OpenVinoGraph
from tests.unit.export.test_graph_parity import (
    Case,
    assert_equal_outputs,
    expected_outputs,
    text_fields,
    token_ids,
    unet_fields,
)
from tests.unit.runtime.engines import noise

RANKS = (4, 0, 1, 7)  # of the layers in turn
STRENGTH = 0.3
CASE = Case(2, 8, 9, 77, residuals=True, adapters=1)
Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # layer -> a [rank, in, ...], b [out, rank, ...]


def lora_layers(manifest: Manifest) -> dict[str, tuple[GraphTensor, GraphTensor]]:
    """Layer -> its two low-rank inputs."""
    tensors = {tensor.name: tensor for tensor in manifest.inputs if ".lora_" in tensor.name}
    layers = sorted({name.rpartition(".")[0] for name in tensors})
    return {layer: (tensors[f"{layer}.lora_a"], tensors[f"{layer}.lora_b"]) for layer in layers}


def is_convolution(a: GraphTensor) -> bool:
    return len(a.axes) == 4


def make_pairs(manifest: Manifest, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA of every layer, in turn of each of RANKS; convolutions have rank 4."""
    pairs = {}
    for index, (layer, (a, b)) in enumerate(lora_layers(manifest).items()):
        rank = 4 if is_convolution(a) else RANKS[index % len(RANKS)]
        down, up = (_sizes(tensor, rank) for tensor in (a, b))
        fan_in = torch.Size(down[1:]).numel()
        down_values = noise(*down, seed=seed + index) / fan_in**0.5
        pairs[layer] = (down_values, STRENGTH * noise(*up, seed=seed + 1000 + index) / max(rank, 1) ** 0.5)
    return pairs


def _sizes(tensor: GraphTensor, rank: int) -> list[int]:
    axes = [axis for axis in tensor.axes if axis != "low_rank_rows"]
    return [axis if isinstance(axis, int) else rank for axis in axes]


def inputs_of(rows: Sequence[Pairs]) -> dict[str, torch.Tensor]:
    """The low-rank inputs of a call. Linear layers get the pairs of each row; convolutions those of the first one."""
    found = {}
    for layer, pair in rows[0].items():
        for index, name in enumerate(("lora_a", "lora_b")):
            is_spatial = pair[index].dim() == 4
            values = [row[layer][index] for row in rows]
            found[f"{layer}.{name}"] = values[0] if is_spatial else torch.stack(values)
    return found


def merged(network: TinyNetwork, pairs: Pairs) -> TinyNetwork:
    """The network with the LoRA merged into its weights."""
    weights = dict(network.weights)
    for layer, (down, up) in pairs.items():
        base = weights[f"{layer}.weight"].float()
        weights[f"{layer}.weight"] = torch.empty_like(base)
        merge(base, [LowRank(down, up, 1.0)], weights[f"{layer}.weight"])
    return replace(network, weights=weights)


def row_of(fields: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {
        name: tuple(item[row : row + 1] for item in value) if isinstance(value, tuple) else value[row : row + 1]
        for name, value in fields.items()
    }


UNETS = ["sd15 unet", *(pytest.param(name, marks=pytest.mark.verify) for name in ("sd2 unet", "sdxl unet"))]


@pytest.mark.parametrize("name", UNETS)
def test_rows_of_one_unet_call_have_different_loras(graphs: Graphs, name: str) -> None:
    manifest, network = graphs.artifact(name, "linear").manifest, graphs.network(name)
    fields = unet_fields(manifest, CASE)
    rows = [make_pairs(manifest, seed=1), make_pairs(manifest, seed=9000)]
    found = graphs.compiled(name).run(graph_inputs(manifest, fields, inputs_of(rows)))
    for index, pairs in enumerate(rows):
        expected = expected_outputs(merged(network, pairs), row_of(fields, index))
        assert_equal_outputs({"prediction": found["prediction"][index : index + 1]}, expected)
        base = expected_outputs(network, row_of(fields, index))["prediction"]
        assert (expected["prediction"] - base).abs().max() > 0.05 * base.std()


@pytest.mark.parametrize("name", UNETS)
def test_all_rows_of_a_unet_call_share_a_lora(graphs: Graphs, name: str) -> None:
    manifest, network = graphs.artifact(name, "linear").manifest, graphs.network(name)
    fields, pairs = unet_fields(manifest, CASE), make_pairs(manifest, seed=1)
    found = graphs.compiled(name).run(graph_inputs(manifest, fields, inputs_of([pairs])))
    assert_equal_outputs(found, expected_outputs(merged(network, pairs), fields))


def test_nothing_of_a_lora_is_left_in_the_next_call(graphs: Graphs) -> None:
    manifest, graph = graphs.artifact("sd15 unet", "linear").manifest, graphs.compiled("sd15 unet")
    fields = unet_fields(manifest, CASE)
    base = graph_inputs(manifest, fields, {})
    first = graph.run(base)["prediction"]
    changed = graph.run(graph_inputs(manifest, fields, inputs_of([make_pairs(manifest, seed=1)])))["prediction"]
    assert not torch.equal(changed, first)
    assert torch.equal(graph.run(base)["prediction"], first)


@pytest.mark.parametrize("name", ["sd15 unet", pytest.param("sdxl unet", marks=pytest.mark.verify)])
def test_loras_of_convolutions(graphs: Graphs, name: str) -> None:
    artifact, network = graphs.artifact(name, "all"), graphs.network(name)
    ranks = {
        tensor.name: 4 for pair in lora_layers(artifact.manifest).values() for tensor in pair if is_convolution(pair[0])
    }
    graph = OpenVinoGraph(artifact, network.weights, ranks)
    fields = unet_fields(artifact.manifest, CASE)
    rows = [make_pairs(artifact.manifest, seed=1), make_pairs(artifact.manifest, seed=9000)]
    found = graph.run(graph_inputs(artifact.manifest, fields, inputs_of(rows)))
    for index, pairs in enumerate(rows):
        shared = {layer: rows[0][layer] if pair[0].dim() == 4 else pair for layer, pair in pairs.items()}
        expected = expected_outputs(merged(network, shared), row_of(fields, index))
        assert_equal_outputs({"prediction": found["prediction"][index : index + 1]}, expected)


@pytest.mark.parametrize("name", ["sd15 text_encoder", "sdxl text_encoder_2"])
def test_rows_of_a_text_encoder_call_have_different_loras(graphs: Graphs, name: str) -> None:
    manifest, network = graphs.artifact(name, "linear").manifest, graphs.network(name)
    ids = token_ids(network, 2)
    rows = [make_pairs(manifest, seed=1), make_pairs(manifest, seed=9000)]
    found = graphs.compiled(name).run(graph_inputs(manifest, text_fields(network, ids), inputs_of(rows)))
    for index, pairs in enumerate(rows):
        alone = {output: value[index : index + 1] for output, value in found.items()}
        assert_equal_outputs(alone, expected_outputs(merged(network, pairs), {"ids": ids[index : index + 1]}))
