"""The graphs that `make bench CASES=absent_fields` compares compute the same for a call without optional fields."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cases.absent_fields import figures
from benchmarks.unet_forms import FORMS, export_form
from runtime.artifacts.artifact import Artifact
from runtime.engines.compiled.call_inputs import call_inputs
from runtime.engines.compiled.graphs import read_graphs
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import SMALL_UNET, TinyNetwork
from tests.unit.export.openvino_graph import OpenVinoGraph


def test_each_form_computes_the_same_with_the_inputs_that_it_names(graphs: Graphs, tmp_path: Path) -> None:
    network = graphs.network(SMALL_UNET)
    inputs, predictions = {}, {}
    for form in FORMS:
        export_form(form, network.architecture, tmp_path / form, lambda _: None)
        artifact = _artifact_for_calls_without_loras(tmp_path / form, network)
        inputs[form] = [tensor.name for tensor in artifact.manifest.inputs]
        predictions[form] = _predict(artifact, network)
    plain, served, *low_rank = FORMS
    assert inputs[plain] == ["latent", "t", "text"]
    assert {"ip_k", "residual_0"} < set(inputs[served])
    assert all(any(name.endswith(".lora_a") for name in inputs[form]) for form in low_rank)
    for form in FORMS:
        torch.testing.assert_close(predictions[form], predictions[plain], rtol=0, atol=1e-5)


def test_the_figures_are_relative_to_the_form_with_fewer_inputs() -> None:
    samples = dict(zip(FORMS, ([2.0], [2.1], [2.31], [2.52]), strict=True))
    unused, linear, convolutions = figures(samples, "SD 1.5")
    assert [unused.value, linear.value, convolutions.value] == pytest.approx([1.05, 1.1, 1.2])
    assert unused.at_most == 1.02


def _artifact_for_calls_without_loras(artifacts: Path, network: TinyNetwork) -> Artifact:
    found = read_graphs(artifacts, network.architecture)
    assert found is not None
    return found["none"]


def _predict(artifact: Artifact, network: TinyNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    fields = {
        "latent": torch.randn(2, 4, 8, 8, generator=generator),
        "t": torch.tensor([501.0, 501.0]),
        "text": torch.randn(2, 77, network.options["cross_attention_dim"][0], generator=generator),
    }
    inputs = call_inputs(artifact.manifest, fields, {})
    return OpenVinoGraph(artifact, network.weights).run(inputs)["prediction"]
