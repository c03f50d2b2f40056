"""`python -m benchmarks.tensorrt.tiny` (`make trt-tiny`): build the plans of the tests' tiny networks without a GPU.

Every kind of network of every family, with the layers of the published ones. UNets are built without low-rank inputs;
those of two levels with them: each low-rank input has a rank of its own, for which the builder takes long.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import describe_machine
from benchmarks.tensorrt.plan_figures import ABOUT, plan_figures
from export.make_artifact import make_artifact
from runtime.artifacts.manifest import ArtifactKey, LowRankMode, low_rank_modes
from tests.tiny.folder import tiny_folder
from tests.unit.export.networks import ALL_NETWORKS, SMALL_UNETS
from tests.unit.export.tensorrt.plans import PROFILE

RESULT = Path(__file__).resolve().parent / "results" / "tiny.json"


def build(name: str) -> dict[str, Any]:
    """The figures of one network."""
    architecture = ALL_NETWORKS[name](tiny_folder()).architecture
    takes_loras = "linear" in low_rank_modes(architecture.kind)
    mode: LowRankMode = "linear" if takes_loras and (architecture.kind != "unet" or name in SMALL_UNETS) else "none"
    artifact = make_artifact(
        ArtifactKey(architecture.kind, architecture.digest, mode), architecture, lambda _: None
    ).artifact
    low_rank = sum(tensor.name.endswith(".lora_a") for tensor in artifact.manifest.inputs)
    return {"LoRA inputs": low_rank, **plan_figures(artifact, architecture, PROFILE)}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="As 'sd15 unet'; default: all.")] = None,
    result: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
) -> None:
    """Build the plans, and keep the figures of the ones that are not built now."""
    machine = describe_machine()
    about = ABOUT | {key: machine[key] for key in ("cpu", "cores", "load", "commit", "date")}
    found = json.loads(result.read_text("utf-8")) if result.is_file() else {"plans": {}}
    for name in names or list(ALL_NETWORKS):
        found["plans"][name] = {**build(name), "machine": about}
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(found['plans'][name])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
