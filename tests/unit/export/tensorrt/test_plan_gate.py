"""The gate of plans, over the emulator: it passes what computes as torch does, and refuses the rest."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from export.errors import ExportError
from export.gate_weights import expected_outputs
from export.tensorrt import gate
from export.tensorrt import make_plan as make_plan_module
from export.tensorrt.gate import PlanGate, gate_calls
from runtime.artifacts.plan import Plan
from runtime.artifacts.plan_manifest import Precision
from runtime.engines.tensorrt import call_graphs
from runtime.engines.tensorrt.loaded_plan import LoadedPlan
from runtime.engines.tensorrt.plan_weights import PlanWeights
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import NETWORKS
from tests.unit.export.tensorrt.emulator import Emulator, HostStream
from tests.unit.export.tensorrt.plans import PROFILE, make_plan

pytestmark = pytest.mark.usefixtures("emulator")
IN_EACH_TEST = ("sd15 vae_decoder", "sd15 text_encoder")
NAMES = [name if name in IN_EACH_TEST else pytest.param(name, marks=pytest.mark.verify) for name in NETWORKS]


def _gate(graphs: Graphs, name: str, folder: Path, precision: Precision = "float32") -> PlanGate:
    architecture, artifact = graphs.network(name).architecture, graphs.artifact(name, "linear")
    plan = make_plan(artifact, architecture, folder, precision)
    return PlanGate(architecture, plan, HostStream(), torch.device("cpu"))


def _silent(_: str) -> None:
    """Shows no phase."""


@pytest.mark.parametrize("name", NAMES)
def test_the_plans_of_all_networks_pass(graphs: Graphs, name: str, tmp_path: Path) -> None:
    assert 0 < _gate(graphs, name, tmp_path).check(_silent) < 1e-4


def _other_graph(plan: Plan, change: str) -> Plan:
    """The plan of a graph with other arithmetic."""
    header, _, graph = plan.plan.partition(b"\n")
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == change:
                attribute.f = 0.05
    return replace(plan, plan=header + b"\n" + model.SerializeToString())


def test_other_arithmetic_is_refused(graphs: Graphs, tmp_path: Path) -> None:
    found = _gate(graphs, "sd15 vae_decoder", tmp_path)
    with pytest.raises(ExportError, match=r"the plan differs from torch: pixels by .* with weights base"):
        replace(found, plan=_other_graph(found.plan, "epsilon")).check(_silent)


def test_weights_that_stay_behind_are_refused(graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refit of the second set that does nothing."""
    found = _gate(graphs, "sd15 text_encoder", tmp_path)
    refits = 0

    def refit_nothing(refitter: object, names: object, tensors: object) -> None:
        nonlocal refits
        refits += 1
        if refits != 3:
            original(refitter, names, tensors)

    original: Any = PlanWeights._refit
    monkeypatch.setattr(PlanWeights, "_refit", refit_nothing)
    with pytest.raises(ExportError, match="with weights B"):
        found.check(_silent)


@pytest.mark.parametrize("emulator", [False], indirect=True)
def test_cuda_graphs_are_compared_too(
    graphs: Graphs, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _gate(graphs, "sd15 text_encoder", tmp_path)
    found.check(_silent)
    assert emulator.engines[0].replays > 0

    def replay(graph: Any, inputs: Any) -> dict[str, torch.Tensor]:
        return {name: value.nextafter(value + 1) for name, value in graph.outputs.items()}

    monkeypatch.setattr(call_graphs, "_replayed", replay)
    with pytest.raises(ExportError, match=r"call 6 with the base weights after others gives other bytes"):
        found.check(_silent)


def test_one_network_at_a_time_is_on_the_device(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU with 24 GB holds the plan of SDXL's UNet with one weight set, or the network in float32 with one."""
    networks: list[tuple[weakref.ref[torch.Tensor], ...]] = []  # the weights of each, in float32

    def compute(architecture: Any, manifest: Any, weights: Any, inputs: Any) -> Any:
        refs = tuple(map(weakref.ref, weights.values()))
        if not networks or networks[-1][0]() is not refs[0]():
            assert not any(ref() is not None for other in networks for ref in other), "of the set before"
            networks.append(refs)
        return expected_outputs(architecture, manifest, weights, inputs)

    def load(*arguments: Any, **options: Any) -> LoadedPlan:
        assert len(networks) == 4, "all was computed before"
        assert not any(ref() is not None for other in networks for ref in other)
        return LoadedPlan(*arguments, **options)

    monkeypatch.setattr(gate, "expected_outputs", compute)
    monkeypatch.setattr(gate, "LoadedPlan", load)
    assert 0 < _gate(graphs, "sd15 text_encoder", tmp_path, "float16").check(_silent) < 1e-2


def test_too_little_memory_is_an_error_of_the_export(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.99 GiB. GPU 0 has a total capacity")

    found = _gate(graphs, "sd15 text_encoder", tmp_path)
    monkeypatch.setattr(gate, "expected_outputs", compute)
    monkeypatch.setattr(make_plan_module, "CudaStream", HostStream)
    monkeypatch.setattr(torch, "device", lambda _: found.device)
    with pytest.raises(ExportError, match=r"too little free memory .*\(CUDA out of memory\)"):
        make_plan_module._check(found.architecture, found.plan, _silent)


def test_the_calls_are_within_the_profile() -> None:
    smallest, typical, odd = gate_calls(PROFILE)
    assert smallest == (1, 3, 3, 1, 0, 1, 0)
    assert typical == (2, 8, 8, 1, 0, 1, 0)
    assert odd == (2, 13, 10, 2, 2, 4, 0)
