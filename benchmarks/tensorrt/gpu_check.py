"""`python -m benchmarks.tensorrt.gpu_check RESULT` (`make gpu-check`): plans of full size on an NVIDIA GPU.

Builds the UNet's plan from weights, compares it with torch, and publishes it only then. Then the engine runs it: with
the base weights, two LoRAs as changed weights, and the base again; with CUDA graphs and without. Its refits and calls
are timed. With TensorRT-RTX, a plan that was built without weights is compared with torch too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.gpu.models import GpuModels
from benchmarks.gpu.parity import BoundUnet, lora_weights, make_cache, relative_error
from benchmarks.gpu.rows import Rows
from export.errors import ExportError
from export.free_memory import free_memory
from export.make_artifact import make_artifact
from export.publish import exporting, publish, publish_plan
from export.tensorrt.gate import PlanGate
from export.tensorrt.make_plan import PlanMaker
from export.tensorrt.profiles import default_profiles, read_profiles
from runtime.artifacts.manifest import ArtifactKey
from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.engine import Inputs, never_cancelled
from runtime.engines.lru_budget import LruBudget
from runtime.engines.placement import Placement
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_graphs import CALLS_BEFORE
from runtime.engines.tensorrt.call_stream import CudaStream
from runtime.engines.tensorrt.machine import this_machine
from runtime.engines.tensorrt.make_engine import make_tensorrt
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.tensorrt_engine import TensorRtEngine
from runtime.networks.architecture import architecture_of
from runtime.settings import Settings
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.merging import Changes

_PIXELS = {"sd15": 512, "sdxl": 1024}
_CUDA = torch.device("cuda")
_CALLS, _REFITS = 50, 10
_WARM_UPS = CALLS_BEFORE + 2  # the calls before the first replay of a CUDA graph
_LOW_RANK_BYTES = 1 << 30


class UnetCheck:
    """The UNet of one checkpoint. `root`: the artifacts' folder."""

    def __init__(self, models: GpuModels, name: str, root: Path) -> None:
        self._models, self._name, self._root = models, name, root
        self._checkpoint = models.checkpoint(name)
        self._unet = self._checkpoint.unet
        self._architecture = architecture_of("unet", self._unet.config)
        self._rows = Rows(self._checkpoint, _PIXELS[name], _CUDA, seed=1)
        self._profiles = read_profiles(default_profiles([self._architecture]))
        self._weights = make_cache()

    def run(self) -> dict[str, Any]:
        found = self._build() | self._check_placeholders()
        sets, row = self._sets(), self._rows.plain()
        expected = {name: self._exact(weights, row) for name, weights in sets.items()}
        torch_call = self._torch_call(sets["base"])
        free_memory()
        free = torch.cuda.mem_get_info()[0]
        engine, direct = self._engine(cuda_graphs=True), self._engine(cuda_graphs=False)
        found["memory of two engines without weights of requests, MB"] = (free - torch.cuda.mem_get_info()[0]) // 10**6
        found |= self._parity(engine, sets, row, expected)
        found |= self._graphs(engine, direct, sets["base"])
        found |= self._times(engine, direct, sets)
        return found | {"call, torch float16, seconds": torch_call}

    def _build(self) -> dict[str, Any]:
        """Export the graph, build the plan, and publish both if the plan computes what torch computes."""
        key = ArtifactKey("unet", self._architecture.digest, "linear")
        maker = PlanMaker(self._root, self._profiles)
        with exporting(self._root):
            graph = make_artifact(key, self._architecture, _show)
            publish(self._root, graph.artifact.manifest, graph.compressed)
            begun = time.monotonic()
            made = maker.make(graph.artifact, self._architecture, "float16", _show)
            seconds = time.monotonic() - begun
            publish_plan(self._root, made.plan.manifest, made.compressed)
        return {"build and gate, seconds": seconds, "plan, MB": len(made.plan.plan) / 1e6}

    def _check_placeholders(self) -> dict[str, Any]:
        """Whether the plan that TensorRT-RTX builds without weights computes what torch computes.

        It has no low-rank inputs, with which the build takes several times as long.
        """
        if not flavour.IS_RTX:
            return {}
        key = ArtifactKey("unet", self._architecture.digest, "none")
        maker = PlanMaker(self._root, self._profiles, targets=(this_machine().capability,))
        try:
            graph = make_artifact(key, self._architecture, _show)
            plan = maker.make(graph.artifact, self._architecture, "float16", _show).plan
            error: object = PlanGate(self._architecture, plan, CudaStream(), _CUDA).check(_show)
        except (ExportError, PlanError) as failure:
            error = str(failure)
        return {"plan from placeholders, largest relative error": error}

    def _engine(self, cuda_graphs: bool) -> TensorRtEngine:
        settings = Settings(artifacts=self._root, engine="tensorrt")
        low_ranks = LowRankCache(LruBudget(_LOW_RANK_BYTES))
        placement = Placement(_CUDA, torch.float16)
        engine = make_tensorrt(self._architecture, settings, placement, self._weights, low_ranks, cuda_graphs)
        assert engine is not None, "the plan was published"
        return engine

    def _sets(self) -> dict[str, WeightSet]:
        """The base; two sets that must be merged, because they change a bias too; and a LoRA that is an input."""
        lora = {number: lora_weights(self._models, self._name, self._checkpoint, (number,)) for number in (1, 2)}
        return {
            "base": WeightSet(self._unet),
            "A": WeightSet(self._unet, (*lora[1].sources, self._bias(1))),
            "B": WeightSet(self._unet, (*lora[2].sources, self._bias(2))),
            "low rank": lora[1],
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

    def _parity(
        self, engine: TensorRtEngine, sets: dict[str, WeightSet], row: Inputs, expected: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        """Errors against torch in float32, and whether the base's bytes come back."""
        order = ("base", "A", "B", "base", "low rank", "base")
        found = [_predict(engine, sets[name], row) for name in order]
        errors = {
            name: relative_error(prediction, expected[name])
            for name, prediction in zip(order[:5], found[:5], strict=True)
        }
        return {
            "relative errors": errors,
            "base -> A -> B -> base -> LoRA -> base: equal bytes": all(
                torch.equal(found[0], found[place]) for place in (3, 5)
            ),
        }

    def _graphs(self, engine: TensorRtEngine, direct: TensorRtEngine, weights: WeightSet) -> dict[str, Any]:
        """Whether replays of CUDA graphs, each with other inputs, have the bytes of calls without."""
        rows = [self._rows.plain() for _ in range(2 * CALLS_BEFORE)]
        found, expected = ([_predict(one, weights, row) for row in rows] for one in (engine, direct))
        are_equal = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        return {"CUDA graphs: equal bytes": are_equal}

    def _times(self, engine: TensorRtEngine, direct: TensorRtEngine, sets: dict[str, WeightSet]) -> dict[str, Any]:
        row = self._rows.plain()

        def calls(of: TensorRtEngine, *names: str) -> Callable[[], None]:
            bindings = [of.bind(sets[name], never_cancelled) for name in names]

            def run() -> None:
                for binding in bindings:
                    of.run([(binding, row)] * 2)

            return run

        direct_call = _seconds(calls(direct, "A"), _CALLS)
        return {
            "call, seconds": {name: _seconds(calls(engine, name), _CALLS) for name in sets},
            "call without CUDA graphs, seconds": direct_call,
            "refit from A to B, seconds": _seconds(calls(direct, "A", "B"), _REFITS) / 2 - direct_call,
        }


def _predict(engine: TensorRtEngine, weights: WeightSet, row: Inputs) -> torch.Tensor:
    binding = engine.bind(weights, never_cancelled)
    prediction = engine.run([(binding, row)] * 2)[0]["prediction"]
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
) -> None:
    """Check TensorRT on this machine's GPU. An error ends the check of its checkpoint only."""
    found: dict[str, Any] = {"machine": this_machine()._asdict(), "torch": torch.__version__, "checks": {}}
    with tempfile.TemporaryDirectory(prefix="lorikeet-gpu-check-") as folder:
        models = GpuModels(Path(folder) / "models")
        for name in names or list(_PIXELS):
            _show(name)
            try:
                found["checks"][name] = UnetCheck(models, name, Path(folder) / "artifacts").run()
            except Exception as error:
                found["checks"][name] = f"failed: {type(error).__name__}: {str(error)[:500]}"
            result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            _show(json.dumps(found["checks"][name], indent=1))


if __name__ == "__main__":
    typer.run(main)
