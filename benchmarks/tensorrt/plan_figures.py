"""Builds the plan of a graph without a GPU, and says what it took."""

from __future__ import annotations

import lzma
import time
from typing import Any

import onnx

from export.tensorrt.build_plan import build_for_targets
from export.tensorrt.precision import cast_graph
from export.tensorrt.profiles import input_shapes
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.plan_manifest import Precision, Profile
from runtime.engines.tensorrt import flavour
from runtime.networks.architecture import Architecture

_TARGET = "8.9"
_PRECISION: Precision = "float16"
_MEGABYTE = 1_000_000
# What all plans of a result have in common.
ABOUT = {"precision": _PRECISION, "target": _TARGET, "version": f"{flavour.NAME} {flavour.VERSION}"}


def plan_figures(artifact: Artifact, architecture: Architecture, profile: Profile) -> dict[str, Any]:
    """Seconds, MB, and counts. Weights are placeholders. Raises ExportError when one cannot be refitted by its name."""
    begun, used = time.monotonic(), time.process_time()
    model = onnx.load_from_string(artifact.graph)
    cast_graph(model, _PRECISION)
    plan = build_for_targets(model, input_shapes(artifact.manifest, architecture, profile), [_TARGET])
    seconds, processor = time.monotonic() - begun, time.process_time() - used
    names = [tensor.name for tensor in model.graph.initializer]
    return {
        "weights": len(names),
        "names in the plan": sum(name.encode() in plan for name in names),
        "build seconds": round(seconds, 1),
        "processor seconds": round(processor, 1),
        "plan MB": round(len(plan) / _MEGABYTE, 1),
        "compressed MB": round(len(lzma.compress(plan, preset=1)) / _MEGABYTE, 2),
    }
