"""`python -m benchmarks.tensorrt.gpu_check RESULT` (`make gpu-check`): plans of full size on an NVIDIA GPU.

Builds plans from weights, compares each with torch, and publishes it only then: of the small networks, of the UNet
without low-rank inputs, then with them. The engine runs the UNet's: with the base weights, two LoRAs as changed
weights, and the base again; with CUDA graphs and without. Its refits and calls are timed. With TensorRT-RTX, a plan
that was built without weights is compared with torch too. The result is written after each step, within a time limit.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.gpu.models import GpuModels
from benchmarks.gpu.parity import BoundUnet, lora_weights, make_cache, relative_error
from benchmarks.gpu.rows import Rows
from export.free_memory import free_memory
from export.make_artifact import make_artifact
from export.publish import exporting, publish, publish_plan
from export.tensorrt.gate import PlanGate
from export.tensorrt.make_plan import PlanMaker
from export.tensorrt.profiles import default_profiles, read_profiles
from runtime.artifacts.manifest import ArtifactKey, LowRankMode
from runtime.artifacts.plan import read_plan
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.engine import Inputs, never_cancelled
from runtime.engines.lru_budget import LruBudget
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_graphs import CALLS_BEFORE
from runtime.engines.tensorrt.call_stream import CudaStream
from runtime.engines.tensorrt.machine import this_machine
from runtime.engines.tensorrt.plan_key import plan_key
from runtime.engines.tensorrt.tensorrt_engine import TensorRtEngine
from runtime.networks.architecture import Architecture, NetworkKind, architecture_of
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.merging import Changes

_PIXELS = {"sd15": 512, "sdxl": 1024}
_TEXT_ENCODERS = {"sd15": 1, "sdxl": 2}
_VAE_KINDS: tuple[NetworkKind, ...] = ("vae_encoder", "vae_decoder")
_CUDA = torch.device("cuda")
_CALLS, _REFITS = 50, 10
_WARM_UPS = CALLS_BEFORE + 2  # the calls before the first replay of a CUDA graph
_LOW_RANK_BYTES = 1 << 30


class Steps:
    """Runs one step after the other, and writes the result before and after each. An error ends its step only.

    `deadline`: by `time.monotonic`; no step begins after it.
    """

    def __init__(self, result: Path, about: Mapping[str, Any], deadline: float) -> None:
        self._result, self._deadline = result, deadline
        self._found: dict[str, Any] = {**about, "steps": {}, "seconds": {}, "left out": {}}
        self._done: set[str] = set()

    def add(self, name: str, work: Callable[[], Any], *needs: str) -> None:
        """Run a step, unless the time is over or one of the steps `needs` did not succeed."""
        begun = time.monotonic()
        if begun >= self._deadline:
            self._found["left out"][name] = "no time left"
        elif missing := [need for need in needs if need not in self._done]:
            self._found["left out"][name] = f"it needs: {', '.join(missing)}"
        else:
            self._keep(name, "begun, and not ended")  # what a killed run leaves
            self._keep(name, self._outcome(name, work))
            self._found["seconds"][name] = round(time.monotonic() - begun, 1)
            free_memory()
        self._write()

    def _outcome(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            value = work()
        except Exception as error:
            return f"failed: {type(error).__name__}: {str(error)[:500]}"
        self._done.add(name)
        return value

    def _keep(self, name: str, value: Any) -> None:
        self._found["steps"][name] = value
        self._write()
        _show(f"{name}: {json.dumps(value)}")

    def _write(self) -> None:
        """The file is whole at any time."""
        part = self._result.with_name(f"{self._result.name}.part")
        part.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
        part.replace(self._result)


def build(root: Path, architecture: Architecture, mode: LowRankMode) -> dict[str, Any]:
    """Export the graph, build the plan, and publish both if the plan computes what torch computes."""
    maker = PlanMaker(root, read_profiles(default_profiles([architecture])))
    precision = plan_key(architecture, torch.float16).precision
    with exporting(root):
        graph = make_artifact(ArtifactKey(architecture.kind, architecture.digest, mode), architecture, _show)
        publish(root, graph.artifact.manifest, graph.compressed)
        begun = time.monotonic()
        made = maker.make(graph.artifact, architecture, precision, _show)
        seconds = time.monotonic() - begun
        publish_plan(root, made.plan.manifest, made.compressed)
    return {"precision": precision, "build and gate, seconds": seconds, "plan, MB": len(made.plan.plan) / 1e6}


class CheckpointCheck:
    """The steps of one checkpoint, whose files are written in the first. `root`: the artifacts' folder."""

    def __init__(self, steps: Steps, models: GpuModels, name: str, root: Path) -> None:
        self._steps, self._models, self._name, self._root = steps, models, name, root

    def add_small(self) -> None:
        """Without low-rank inputs."""
        for number in range(_TEXT_ENCODERS[self._name]):
            self._add_text_encoder(number, "none")
        for kind in _VAE_KINDS:
            self._steps.add(f"{self._name} {kind}", partial(self._build_vae, kind))

    def add_text_encoders(self) -> None:
        """With low-rank inputs."""
        for number in range(_TEXT_ENCODERS[self._name]):
            self._add_text_encoder(number, "linear")

    def add_unet(self, mode: LowRankMode) -> None:
        """The steps of `UnetCheck` need the ones before."""
        title = f"{self._name} unet, low-rank inputs {mode}"
        plan, exact, engines = (f"{title}: {step}" for step in ("plan", "torch", "engines"))
        check = UnetCheck(self._models, self._name, self._root, mode)
        self._steps.add(plan, check.build)
        self._steps.add(exact, check.run_torch, plan)
        self._steps.add(engines, check.load, plan)
        self._steps.add(f"{title}: parity", check.compare_with_torch, exact, engines)
        self._steps.add(f"{title}: CUDA graphs", check.compare_graphs, engines)
        self._steps.add(f"{title}: times", check.measure, engines)
        if flavour.IS_RTX and mode == "none":
            self._steps.add(f"{title}: plan from placeholders", check.check_placeholders)

    def _add_text_encoder(self, number: int, mode: LowRankMode) -> None:
        title = f"{self._name} text encoder {number + 1}, low-rank inputs {mode}"
        self._steps.add(title, lambda: self._build_text_encoder(number, mode))

    def _build_text_encoder(self, number: int, mode: LowRankMode) -> dict[str, Any]:
        component = self._models.checkpoint(self._name).text_encoders[number]
        return build(self._root, architecture_of("text_encoder", component.config), mode)

    def _build_vae(self, kind: NetworkKind) -> dict[str, Any]:
        return build(self._root, architecture_of(kind, self._models.checkpoint(self._name).vae.config), "none")


class UnetCheck:
    """The UNet of one checkpoint, with or without low-rank inputs. `root`: the artifacts' folder."""

    def __init__(self, models: GpuModels, name: str, root: Path, mode: LowRankMode) -> None:
        self._models, self._name, self._root, self._mode = models, name, root, mode
        self._expected: dict[str, torch.Tensor] = {}

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return self._models.checkpoint(self._name)

    @cached_property
    def _unet(self) -> Component:
        return self._checkpoint.unet

    @cached_property
    def _architecture(self) -> Architecture:
        return architecture_of("unet", self._unet.config)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self._checkpoint, _PIXELS[self._name], _CUDA, seed=1)

    @cached_property
    def _row(self) -> Inputs:
        """The row of the comparison with torch."""
        return self._rows.plain()

    def build(self) -> dict[str, Any]:
        return build(self._root, self._architecture, self._mode)

    def check_placeholders(self) -> dict[str, Any]:
        """Whether the plan that TensorRT-RTX builds without weights computes what torch computes."""
        key = ArtifactKey("unet", self._architecture.digest, self._mode)
        profiles = read_profiles(default_profiles([self._architecture]))
        maker = PlanMaker(self._root, profiles, targets=(this_machine().capability,))
        graph = make_artifact(key, self._architecture, _show)
        plan = maker.make(graph.artifact, self._architecture, "float16", _show).plan
        return {"largest relative error": PlanGate(self._architecture, plan, CudaStream(), _CUDA).check(_show)}

    def run_torch(self) -> dict[str, Any]:
        """What the engine must compute, and how long torch takes for it."""
        self._expected = {name: self._exact(weights, self._row) for name, weights in self._sets().items()}
        return {"call, torch float16, seconds": self._torch_call(WeightSet(self._unet))}

    def load(self) -> dict[str, Any]:
        self._weights = make_cache()
        free = torch.cuda.mem_get_info()[0]
        self._engine, self._direct = self._make_engine(cuda_graphs=True), self._make_engine(cuda_graphs=False)
        return {"memory of two engines without weights of requests, MB": (free - torch.cuda.mem_get_info()[0]) // 10**6}

    def _make_engine(self, cuda_graphs: bool) -> TensorRtEngine:
        low_ranks = LowRankCache(LruBudget(_LOW_RANK_BYTES))
        key = plan_key(self._architecture, torch.float16).model_copy(update={"low_rank": self._mode})
        plan = read_plan(self._root, key, this_machine(), unverified=False)
        assert plan is not None, "the plan was published"
        return TensorRtEngine(
            self._architecture, plan, _CUDA, CudaStream(), self._weights, low_ranks, cuda_graphs=cuda_graphs
        )

    def _sets(self) -> dict[str, WeightSet]:
        """The base; two sets that must be merged, because they change a bias too; a LoRA for low-rank inputs."""
        lora = {number: lora_weights(self._models, self._name, self._checkpoint, (number,)) for number in (1, 2)}
        return {
            "base": WeightSet(self._unet),
            "A": WeightSet(self._unet, (*lora[1].sources, self._bias(1))),
            "B": WeightSet(self._unet, (*lora[2].sources, self._bias(2))),
            "LoRA": lora[1],
        }

    def _bias(self, seed: int) -> Changes:
        name = "mid_block.resnets.0.conv1.bias"
        (size,) = self._unet.shapes[name]
        up = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed))
        return Changes(f"bias {seed}", {name: LowRank(torch.ones(1, 1), up, 0.1)})

    def _exact(self, weights: WeightSet, row: Inputs) -> torch.Tensor:
        """torch's prediction in float32. On 24 GB, SDXL's UNet in float32 has no place beside another network."""
        free_memory()
        return BoundUnet(weights, torch.float32, cuda_graphs=False).run(row)

    def _torch_call(self, weights: WeightSet) -> float:
        free_memory()
        unet, row = BoundUnet(weights, torch.float16), self._rows.plain()
        return _seconds(lambda: unet.run(row), _CALLS)

    def compare_with_torch(self) -> dict[str, Any]:
        """Errors against torch in float32, and whether the base's bytes come back."""
        sets, order = self._sets(), ("base", "A", "B", "base", "LoRA", "base")
        found = [_predict(self._engine, sets[name], self._row) for name in order]
        errors = {
            name: relative_error(prediction, self._expected[name])
            for name, prediction in zip(order[:5], found[:5], strict=True)
        }
        return {
            "relative errors": errors,
            "base -> A -> B -> base -> LoRA -> base: equal bytes": all(
                torch.equal(found[0], found[place]) for place in (3, 5)
            ),
        }

    def compare_graphs(self) -> dict[str, Any]:
        """Whether replays of CUDA graphs, each with other inputs, have the bytes of calls without.

        The first shape comes again at the end: its graph must not run with what the context holds of the other.
        """
        weights = WeightSet(self._unet)
        calls = [(self._rows.plain(), count) for count in (2, 1, 2) for _ in range(2 * CALLS_BEFORE)]
        found, expected = ([_predict(one, weights, *call) for call in calls] for one in (self._engine, self._direct))
        return {"equal bytes": all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))}

    def measure(self) -> dict[str, Any]:
        sets, row, direct = self._sets(), self._row, self._direct

        def calls(of: TensorRtEngine, *names: str) -> Callable[[], None]:
            bindings = [of.bind(sets[name], never_cancelled) for name in names]

            def run() -> None:
                for binding in bindings:
                    of.run([(binding, row)] * 2)

            return run

        direct_call = _seconds(calls(direct, "A"), _CALLS)
        return {
            "call, seconds": {name: _seconds(calls(self._engine, name), _CALLS) for name in sets},
            "call without CUDA graphs, seconds": direct_call,
            "refit from A to B, seconds": _seconds(calls(direct, "A", "B"), _REFITS) / 2 - direct_call,
        }


def _predict(engine: TensorRtEngine, weights: WeightSet, row: Inputs, rows: int = 2) -> torch.Tensor:
    binding = engine.bind(weights, never_cancelled)
    prediction = engine.run([(binding, row)] * rows)[0]["prediction"]
    binding.release()
    assert isinstance(prediction, torch.Tensor)
    return prediction.clone()


def _seconds(work: Callable[[], object], count: int) -> float:
    """The median time of `work`, with what it leaves on the GPU."""
    samples = []
    for _ in range(count + _WARM_UPS):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - begun)
    return median(samples[_WARM_UPS:])


def _show(phase: str) -> None:
    sys.stdout.write(f"  {phase}\n")
    sys.stdout.flush()


def main(
    result: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    names: Annotated[list[str] | None, typer.Argument(help="sd15, sdxl; default: both.")] = None,
    seconds: Annotated[
        float, typer.Option(help="No step begins after this time; the result names what is left.")
    ] = 480,
) -> None:
    """Check TensorRT on this machine's GPU. An error ends its step, and the steps that need it."""
    steps = Steps(result, {"machine": this_machine()._asdict(), "torch": torch.__version__}, time.monotonic() + seconds)
    with tempfile.TemporaryDirectory(prefix="lorikeet-gpu-check-") as folder:
        models, root = GpuModels(Path(folder) / "models"), Path(folder) / "artifacts"
        add_steps([CheckpointCheck(steps, models, name, root) for name in names or list(_PIXELS)])


def add_steps(checks: Sequence[CheckpointCheck]) -> None:
    """The shortest first. With low-rank inputs, each layer has a rank axis, and a build takes minutes to hours."""
    for check in checks:
        check.add_small()
    for check in checks:
        check.add_unet("none")
    for check in checks:
        check.add_text_encoders()
    for check in checks:
        check.add_unet("linear")


if __name__ == "__main__":
    typer.run(main)
