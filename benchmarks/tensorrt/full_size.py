"""`python -m benchmarks.tensorrt.full_size` (`make trt-full`): build plans of the published sizes without a GPU.

Each plan is built in a process of its own, whose peak memory is measured. Weights are placeholders.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.full_size import SD15_SIZES, SDXL_SIZES
from benchmarks.machine import describe_machine
from benchmarks.tensorrt.plan_figures import ABOUT, plan_figures
from export.make_artifact import make_artifact
from export.publish import exporting, publish
from export.tensorrt.profiles import default_profiles, read_profiles
from runtime.artifacts.artifact import read_artifact
from runtime.artifacts.manifest import ArtifactKey
from runtime.networks.architecture import Architecture, NetworkKind, architecture_of
from runtime.settings import ROOT

RESULT = Path(__file__).resolve().parent / "results" / "full_size.json"
NETWORKS: dict[str, tuple[NetworkKind, dict[str, Any]]] = {
    "sd15-text_encoder": ("text_encoder", SD15_SIZES.family.text_encoders[0] | SD15_SIZES.text_encoders[0]),
    "sd15-vae_encoder": ("vae_encoder", SD15_SIZES.family.vae | SD15_SIZES.vae),
    "sd15-vae_decoder": ("vae_decoder", SD15_SIZES.family.vae | SD15_SIZES.vae),
    "sd15-controlnet": ("controlnet", SD15_SIZES.family.unet | SD15_SIZES.unet),
    "sd15-unet": ("unet", SD15_SIZES.family.unet | SD15_SIZES.unet),
    "sdxl-unet": ("unet", SDXL_SIZES.family.unet | SDXL_SIZES.unet),
}


def export(name: str, root: Path) -> None:
    """Export the network's graph, without low-rank inputs, into the artifacts' folder `root`."""
    architecture = _architecture(name)
    with exporting(root):
        made = make_artifact(_key(architecture), architecture, lambda _: None)
        publish(root, made.artifact.manifest, made.compressed)


def build(name: str, root: Path) -> dict[str, Any]:
    """The figures of the plan of an exported network: seconds, MB, and counts. This process does nothing else."""
    architecture = _architecture(name)
    artifact = read_artifact(root, _key(architecture))
    assert artifact is not None, "it was exported"
    profiles = read_profiles(default_profiles([architecture]))
    figures = plan_figures(artifact, architecture, profiles[architecture.kind])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return figures | {"peak MB": round(peak / 1_000_000)}


def _architecture(name: str) -> Architecture:
    return architecture_of(*NETWORKS[name])


def _key(architecture: Architecture) -> ArtifactKey:
    return ArtifactKey(architecture.kind, architecture.digest, "none")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="As sd15-unet; default: all.")] = None,
    result: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    built_from: Annotated[Path | None, typer.Option(hidden=True, help="Only build, and print the figures.")] = None,
) -> None:
    """Build the plans, and keep the figures of the ones that are not built now."""
    wanted = names or list(NETWORKS)
    if built_from is not None:
        sys.stdout.write(json.dumps(build(wanted[0], built_from)))
        return
    found = json.loads(result.read_text("utf-8")) if result.is_file() else {"plans": {}}
    for name in wanted:
        found["plans"][name] = _measure(name)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(found['plans'][name])}\n")
        sys.stdout.flush()


def _measure(name: str) -> dict[str, Any]:
    """The figures, and what they were measured on."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="lorikeet-trt-full-") as folder:
        export(name, Path(folder))
        command = [sys.executable, "-m", "benchmarks.tensorrt.full_size", name, "--built-from", folder]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    about = ABOUT | {key: machine[key] for key in ("cpu", "cores", "load", "commit", "date")}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"machine": about}


if __name__ == "__main__":
    typer.run(main)
