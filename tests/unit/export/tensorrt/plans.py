"""Plans of tiny graphs, for the emulator."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import onnx

from export.tensorrt.precision import cast_graph
from export.tensorrt.profiles import input_shapes
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.plan import Machine, Plan
from runtime.artifacts.plan_manifest import PlanKey, PlanManifest, Precision, Profile
from runtime.networks.architecture import Architecture
from tests.unit.export.tensorrt.emulator import emulated_plan

MACHINE = Machine("tensorrt_rtx", "1.7.1.116", "NVIDIA L4", "8.9")
PROFILE = Profile(
    rows=(1, 2, 4),
    height=(3, 8, 16),
    width=(3, 8, 16),
    text_chunks=(1, 1, 2),
    adapters=(0, 0, 2),
    ip_tokens=(1, 1, 16),
    rank=(0, 0, 64),
)


def make_plan(artifact: Artifact, architecture: Architecture, folder: Path, precision: Precision = "float32") -> Plan:
    """A plan that was built on MACHINE; `folder` exists."""
    model = onnx.load_from_string(artifact.graph)
    cast_graph(model, precision)
    shapes = dict(input_shapes(artifact.manifest, architecture, PROFILE))
    plan = emulated_plan(model, shapes)
    graph = artifact.manifest
    manifest = PlanManifest(
        key=PlanKey(kind=graph.kind, architecture=graph.architecture, low_rank=graph.low_rank, precision=precision),
        flavour=MACHINE.flavour,
        version=MACHINE.version,
        targets=(MACHINE.capability,),
        gpu=MACHINE.gpu,
        weights="real",
        profile=PROFILE,
        shapes=shapes,
        graph_sha256=graph.graph_sha256,
        plan_sha256=hashlib.sha256(compress(plan)).hexdigest(),
        plan_bytes=len(plan),
        verified=True,
    )
    return Plan(manifest, graph, plan, folder)


def compress(plan: bytes) -> bytes:
    return lzma.compress(plan, preset=1)
