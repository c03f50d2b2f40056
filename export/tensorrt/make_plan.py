"""Makes the plan of an exported graph, with its manifest."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from export.errors import ExportError
from export.gate_weights import random_weights
from export.progress import Show
from export.tensorrt.build_plan import build_for_targets, build_on_gpu
from export.tensorrt.gate import PlanGate
from export.tensorrt.precision import cast_graph
from export.tensorrt.profiles import Profiles, input_shapes
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.plan import Plan
from runtime.artifacts.plan_manifest import PlanKey, PlanManifest, Precision, Shape
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_stream import CudaStream
from runtime.engines.tensorrt.machine import this_machine
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.networks.architecture import Architecture

_TIMING_CACHE = "timing_cache"
_TOO_LITTLE_MEMORY = "the GPU has too little free memory to compare the plan with torch: stop what else uses it"


@dataclass(frozen=True)
class MadePlan:
    """`compressed`: the content of the plan's file."""

    plan: Plan
    compressed: bytes


@dataclass(frozen=True)
class PlanMaker:
    """Makes plans for the GPUs of `targets`; without targets, for this machine's GPU.

    root: the artifacts' folder.
    """

    root: Path
    profiles: Profiles
    targets: tuple[str, ...] = ()

    def make(self, artifact: Artifact, architecture: Architecture, precision: Precision, show: Show) -> MadePlan:
        """Calls `show` with the name of each phase. Raises ExportError.

        On this machine's GPU, the plan is compared with torch. For other GPUs it stays unverified.
        """
        profile = self.profiles.get(architecture.kind)
        if profile is None:
            raise ExportError(f"the profiles have no sizes for a {architecture.kind}")
        shapes = dict(input_shapes(artifact.manifest, architecture, profile))
        machine = None if self.targets else this_machine()
        show(f"builds the plan ({flavour.NAME} {flavour.VERSION})")
        plan = self._build(artifact, architecture, precision, shapes)
        show("compresses the plan")
        compressed = lzma.compress(plan, preset=1)
        graph, version = artifact.manifest, flavour.VERSION
        manifest = PlanManifest(
            key=PlanKey(kind=graph.kind, architecture=graph.architecture, low_rank=graph.low_rank, precision=precision),
            flavour=flavour.NAME,
            version=version,
            targets=self.targets if machine is None else (machine.capability,),
            gpu=None if machine is None else machine.gpu,
            weights="placeholders" if machine is None else "real",
            profile=profile,
            shapes=shapes,
            graph_sha256=graph.graph_sha256,
            plan_sha256=hashlib.sha256(compressed).hexdigest(),
            plan_bytes=len(plan),
            verified=machine is not None,
        )
        made = Plan(manifest, graph, plan, manifest.folder(self.root))
        if machine is not None:
            _check(architecture, made, show)
        return MadePlan(made, compressed)

    def _build(
        self,
        artifact: Artifact,
        architecture: Architecture,
        precision: Precision,
        shapes: Mapping[str, tuple[Shape, Shape, Shape]],
    ) -> bytes:
        model = onnx.load_from_string(artifact.graph)
        cast_graph(model, precision)
        if self.targets:
            return build_for_targets(model, shapes, self.targets)
        weights = random_weights(architecture)
        dtype = getattr(torch, precision)
        values = {tensor.name: weights.pop(tensor.name).to(dtype).contiguous() for tensor in model.graph.initializer}
        return build_on_gpu(model, shapes, values, self.root / _TIMING_CACHE)


def _check(architecture: Architecture, plan: Plan, show: Show) -> None:
    """Raises ExportError when the plan does not compute what torch computes."""
    try:
        PlanGate(architecture, plan, CudaStream(), torch.device("cuda")).check(show)
    except PlanError as error:
        raise ExportError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise ExportError(f"{_TOO_LITTLE_MEMORY} ({str(error).partition('. ')[0]})") from error
