"""A graph with low-rank inputs equals the torch network whose weights the same LoRA is merged into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from runtime.artifacts.manifest import GraphTensor, LowRankMode, Manifest
from runtime.weights.change import LowRank
from runtime.weights.merge import merge
from tests.unit.export.conftest import Graphs
from tests.unit.export.fields import graph_inputs
from tests.unit.export.networks import TinyNetwork
from tests.unit.export.test_graph_parity import (
    Case,
    assert_equal_outputs,
    expected_outputs,
    text_fields,
    token_ids,
    unet_fields,
)
from tests.unit.runtime.engines import noise

UNETS = ["sd15 unet", "sd2 unet", "sdxl unet"]
RANKS = (4, 0, 1, 7)  # of the layers in turn
STRENGTH = 0.3
CASE = Case(2, 8, 9, 77, residuals=True, adapters=1)
Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # layer -> a [rank, in] or [rank, taps, in], b [out, rank]


def lora_layers(manifest: Manifest) -> dict[str, tuple[GraphTensor, GraphTensor]]:
    """Layer -> its two low-rank inputs."""
    tensors = {tensor.name: tensor for tensor in manifest.inputs if ".lora_" in tensor.name}
    layers = sorted({name.rpartition(".")[0] for name in tensors})
    return {layer: (tensors[f"{layer}.lora_a"], tensors[f"{layer}.lora_b"]) for layer in layers}


def make_pairs(manifest: Manifest, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA of every layer, in turn of each of RANKS."""
    pairs = {}
    for index, (layer, (a, b)) in enumerate(lora_layers(manifest).items()):
        rank = RANKS[index % len(RANKS)]
        down, up = (_sizes(tensor, rank) for tensor in (a, b))
        fan_in = torch.Size(down).numel() // max(rank, 1)
        down_values = noise(*down, seed=seed + index) / fan_in**0.5
        pairs[layer] = (down_values, STRENGTH * noise(*up, seed=seed + 1000 + index) / max(rank, 1) ** 0.5)
    return pairs


def _sizes(tensor: GraphTensor, rank: int) -> list[int]:
    return [axis if isinstance(axis, int) else rank for axis in tensor.axes[1:]]


def inputs_of(rows: Sequence[Pairs]) -> dict[str, torch.Tensor]:
    """The low-rank inputs of a call, from the pairs of each row."""
    return {
        f"{layer}.{name}": torch.stack([row[layer][index] for row in rows])
        for layer in rows[0]
        for index, name in enumerate(("lora_a", "lora_b"))
    }


def merged(network: TinyNetwork, pairs: Pairs) -> TinyNetwork:
    """The network with the LoRA merged into its weights."""
    weights = dict(network.weights)
    for layer, (down, up) in pairs.items():
        base = weights[f"{layer}.weight"].float()
        if down.dim() == 3:
            down = down.transpose(1, 2).reshape(len(down), *base.shape[1:])
        weights[f"{layer}.weight"] = torch.empty_like(base)
        merge(base, [LowRank(down, up, 1.0)], weights[f"{layer}.weight"])
    return replace(network, weights=weights)


def row_of(fields: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {
        name: tuple(item[row : row + 1] for item in value) if isinstance(value, tuple) else value[row : row + 1]
        for name, value in fields.items()
    }


OTHERS = ("sd2 unet", "sdxl unet")


def _unets_with_loras() -> list[Any]:
    """UNets with low-rank inputs. `make verify` alone runs all but one of them."""
    others = [pytest.param(name, mode, marks=pytest.mark.verify) for name in OTHERS for mode in ("linear", "all")]
    return [pytest.param("sd15 unet", "linear"), pytest.param("sd15 unet", "all"), *others]


@pytest.mark.parametrize(("name", "mode"), _unets_with_loras())
def test_rows_of_one_unet_call_have_different_loras(graphs: Graphs, name: str, mode: LowRankMode) -> None:
    manifest, network = graphs.artifact(name, mode).manifest, graphs.network(name)
    fields = unet_fields(manifest, CASE)
    rows = [make_pairs(manifest, seed=1), make_pairs(manifest, seed=9000)]
    found = graphs.compiled(name, mode).run(graph_inputs(manifest, fields, inputs_of(rows)))
    for index, pairs in enumerate(rows):
        expected = expected_outputs(merged(network, pairs), row_of(fields, index))
        assert_equal_outputs({"prediction": found["prediction"][index : index + 1]}, expected)
        base = expected_outputs(network, row_of(fields, index))["prediction"]
        assert (expected["prediction"] - base).abs().max() > 0.05 * base.std()


@pytest.mark.parametrize("name", ["sd15 unet", *(pytest.param(name, marks=pytest.mark.verify) for name in OTHERS)])
def test_all_rows_of_a_unet_call_share_a_lora(graphs: Graphs, name: str) -> None:
    manifest, network = graphs.artifact(name, "linear").manifest, graphs.network(name)
    fields, pairs = unet_fields(manifest, CASE), make_pairs(manifest, seed=1)
    found = graphs.compiled(name).run(graph_inputs(manifest, fields, inputs_of([pairs])))
    assert_equal_outputs(found, expected_outputs(merged(network, pairs), fields))


@pytest.mark.parametrize("mode", ["linear", "all"])
def test_nothing_of_a_lora_is_left_in_the_next_call(graphs: Graphs, mode: LowRankMode) -> None:
    manifest, graph = graphs.artifact("sd15 unet", mode).manifest, graphs.compiled("sd15 unet", mode)
    fields = unet_fields(manifest, CASE)
    base = graph_inputs(manifest, fields, {})
    first = graph.run(base)["prediction"]
    changed = graph.run(graph_inputs(manifest, fields, inputs_of([make_pairs(manifest, seed=1)])))["prediction"]
    assert not torch.equal(changed, first)
    assert torch.equal(graph.run(base)["prediction"], first)


@pytest.mark.parametrize("name", ["sd15 text_encoder", "sdxl text_encoder_2"])
def test_rows_of_a_text_encoder_call_have_different_loras(graphs: Graphs, name: str) -> None:
    manifest, network = graphs.artifact(name, "linear").manifest, graphs.network(name)
    ids = token_ids(network, 2)
    rows = [make_pairs(manifest, seed=1), make_pairs(manifest, seed=9000)]
    found = graphs.compiled(name).run(graph_inputs(manifest, text_fields(network, ids), inputs_of(rows)))
    for index, pairs in enumerate(rows):
        alone = {output: value[index : index + 1] for output, value in found.items()}
        assert_equal_outputs(alone, expected_outputs(merged(network, pairs), {"ids": ids[index : index + 1]}))
