"""`python -m export --model ...` (`make export`): make the engines' graphs of a checkpoint's architectures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from export.architectures import read_architectures
from export.errors import ExportError
from export.progress import Stopwatch, console, progress_of
from export.publish import exporting, publish
from runtime.artifacts.artifact import ArtifactError, read_artifact
from runtime.artifacts.manifest import ArtifactKey, low_rank_modes
from runtime.artifacts.plan_manifest import Precision
from runtime.networks.architecture import Architecture
from runtime.settings import SettingsError, load_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_INTERRUPTED = 130

_HELP = """Make the graphs of a checkpoint's networks: ONNX models without weights, in LORIKEET_ARTIFACTS.

A graph belongs to an architecture. A second checkpoint of the same architecture makes nothing new. OpenVINO needs only
the graphs. TensorRT needs a plan of each graph: for this machine's GPU, or without a GPU for those of --targets.
"""


@app.command(help=_HELP)
def main(
    model: Annotated[
        list[Path],
        typer.Option(
            help="A checkpoint, an IP-Adapter's file, or the folder of a ControlNet, image encoder or safety checker."
        ),
    ],
    in_channels: Annotated[
        int | None, typer.Option(min=4, help="Input channels of the UNet: 8 or 12 for IC-Light. Default: its own.")
    ] = None,
    engine: Annotated[Literal["openvino", "tensorrt"], typer.Option(help="`tensorrt` builds plans too.")] = "openvino",
    precision: Annotated[
        Literal["float16", "bfloat16", "float32"], typer.Option(help="Of the plans. A VAE that overflows is float32.")
    ] = "float16",
    targets: Annotated[
        str, typer.Option(help="Compute capabilities of the plans' GPUs, such as 8.6,8.9. Default: this GPU.")
    ] = "",
    profiles: Annotated[
        Path | None, typer.Option(help="JSON file of the sizes of calls; see export/tensorrt/profiles.")
    ] = None,
) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no warnings between the progress lines
    try:
        architectures = {name: found for one in model for name, found in _named(one, in_channels, model)}
        root = load_settings().artifacts_folder
        with exporting(root, lambda: console.print(f"waits for another export to {root}", markup=False)):
            _export_all(root, architectures)
            if engine == "tensorrt":
                _build_plans(root, architectures, precision, tuple(filter(None, targets.split(","))), profiles)
    except (ExportError, SettingsError, OSError) as error:
        console.print(f"lorikeet: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("lorikeet: stopped; finished graphs are kept")
        sys.exit(_INTERRUPTED)


def _named(model: Path, in_channels: int | None, models: Sequence[Path]) -> list[tuple[str, Architecture]]:
    """The architectures of a model of `models`. Their names contain its own if there are others, or its path if another
    one has its name. Raises ExportError."""
    is_unique = [other.stem for other in models].count(model.stem) == 1
    prefix = f"{model.stem if is_unique else model} " if len(models) > 1 else ""
    return [(prefix + name, found) for name, found in read_architectures(model, in_channels).items()]


def _export_all(root: Path, architectures: dict[str, Architecture]) -> None:
    with progress_of(architectures.keys()) as steps:
        for name, show in steps:
            architecture = architectures[name]
            modes = low_rank_modes(architecture.kind)
            keys = [ArtifactKey(architecture.kind, architecture.digest, mode) for mode in modes]
            folder = keys[0].folder(root).parent
            if missing := [key for key in keys if not _is_exported(root, key)]:
                watch = Stopwatch()
                sizes = _export(root, architecture, missing, show)
                console.print(f"{name}: exported in {watch}, {sizes}, {folder}", markup=False)
            else:
                console.print(f"{name}: exported already, {folder}", markup=False)


def _build_plans(
    root: Path,
    architectures: dict[str, Architecture],
    precision: Precision,
    targets: tuple[str, ...],
    profiles: Path | None,
) -> None:
    """Raises ExportError, also when no TensorRT is installed, and OSError."""
    try:
        from export.tensorrt.export_plans import export_plans  # needs TensorRT
    except ImportError as error:
        raise ExportError(str(error)) from error
    export_plans(root, architectures, precision, profiles, targets)


def _export(root: Path, architecture: Architecture, keys: list[ArtifactKey], show: Callable[[str], None]) -> str:
    """Make the graphs of an architecture, and publish them if they compute what the network computes.

    Returns their sizes, to be shown. Raises ExportError and OSError.
    """
    show("imports torch and diffusers")
    # Takes seconds, and is not needed when all graphs exist.
    from export.gate import check_parity
    from export.make_artifact import make_artifact

    made = [make_artifact(key, architecture, show) for key in keys]
    check_parity(architecture, [one.artifact for one in made], show)
    for one in made:
        publish(root, one.artifact.manifest, one.compressed)
    return " and ".join(f"{len(one.compressed) / 1000:.0f} kB ({one.artifact.manifest.low_rank})" for one in made)


def _is_exported(root: Path, key: ArtifactKey) -> bool:
    """Whether the artifact is there and complete. A damaged one is reported, and then made again."""
    try:
        return read_artifact(root, key) is not None
    except ArtifactError as error:
        console.print(f"{error}. It is made again now.", style="yellow", markup=False)
        return False


if __name__ == "__main__":
    app()
