"""`python -m benchmarks.tensorrt.full_size` (`make trt-full`): build plans of the published sizes without a GPU.

Each plan is built in a process of its own, whose peak memory is measured. Weights are placeholders.
"""

from __future__ import annotations

import json
import lzma
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import onnx
import typer

from benchmarks.full_size import SD15_SIZES, SDXL_SIZES, Sizes
from benchmarks.machine import describe_machine
from export.make_artifact import make_artifact
from export.tensorrt.build_plan import build_for_targets
from export.tensorrt.precision import cast_graph
from export.tensorrt.profiles import default_profiles, input_shapes, read_profiles
from runtime.artifacts.manifest import ADAPTABLE_KINDS, ArtifactKey
from runtime.artifacts.plan_manifest import Precision
from runtime.engines.tensorrt import flavour
from runtime.networks.architecture import Architecture, architecture_of
from runtime.settings import ROOT

RESULT = Path(__file__).resolve().parent / "results" / "full_size.json"
SIZES: dict[str, Sizes] = {"sd15": SD15_SIZES, "sdxl": SDXL_SIZES}
_TARGET = "8.9"
_PRECISION: Precision = "float16"
_MEGABYTE = 1_000_000


def build(name: str) -> dict[str, Any]:
    """The figures of the UNet's plan with low-rank inputs: seconds, MB, and counts."""
    sizes = SIZES[name]
    architecture = architecture_of("unet", sizes.family.unet | sizes.unet)
    assert architecture.kind in ADAPTABLE_KINDS
    key = ArtifactKey("unet", architecture.digest, "linear")
    begun = time.monotonic()
    artifact = make_artifact(key, architecture, lambda _: None).artifact
    exported = time.monotonic()
    model = onnx.load_from_string(artifact.graph)
    cast_graph(model, _PRECISION)
    plan = build_for_targets(model, _shapes(artifact.manifest, architecture), [_TARGET])
    built = time.monotonic()
    names = [tensor.name for tensor in model.graph.initializer]
    return {
        "weights": len(names),
        "names in the plan": sum(name.encode() in plan for name in names),
        "low-rank inputs": sum(tensor.name.endswith(".lora_a") for tensor in artifact.manifest.inputs),
        "export seconds": round(exported - begun, 1),
        "build seconds": round(built - exported, 1),
        "plan MB": round(len(plan) / _MEGABYTE, 1),
        "compressed MB": round(len(lzma.compress(plan, preset=1)) / _MEGABYTE, 2),
        "peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEGABYTE),
    }


def _shapes(manifest: Any, architecture: Architecture) -> Any:
    profiles = read_profiles(default_profiles([architecture]))
    return input_shapes(manifest, architecture, profiles[architecture.kind])


def main(
    names: Annotated[list[str] | None, typer.Argument(help="sd15, sdxl; default: both.")] = None,
    result: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    alone: Annotated[bool, typer.Option(hidden=True, help="Build in this process, and print the figures.")] = False,
) -> None:
    """Build the plans, and keep the figures of the ones that are not built now."""
    wanted = names or list(SIZES)
    if alone:
        sys.stdout.write(json.dumps(build(wanted[0])))
        return
    found = json.loads(result.read_text("utf-8")) if result.is_file() else {"plans": {}}
    for name in wanted:
        machine = describe_machine()
        command = [sys.executable, "-m", "benchmarks.tensorrt.full_size", name, "--alone"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        about = {
            "precision": _PRECISION,
            "target": _TARGET,
            "version": f"{flavour.NAME} {flavour.VERSION}",
            "cpu": machine["cpu"],
            "cores": machine["cores"],
            "load": machine["load"],
            "commit": machine["commit"],
            "date": machine["date"],
        }
        found["plans"][name] = json.loads(done.stdout.splitlines()[-1]) | {"machine": about}
        result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(found['plans'][name])}\n")


if __name__ == "__main__":
    typer.run(main)
