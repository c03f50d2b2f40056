"""`python -m export --model ...` (`make export`): make the engines' graphs of a checkpoint's architectures."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from export.architectures import read_architectures
from export.errors import ExportError
from export.publish import exporting
from runtime.artifacts.artifact import GRAPH_FILE, ArtifactError, read_artifact
from runtime.artifacts.manifest import ADAPTABLE_KINDS, ArtifactKey, LowRankMode
from runtime.networks.architecture import Architecture
from runtime.settings import SettingsError, load_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
console = Console(highlight=False, soft_wrap=True)
_INTERRUPTED = 130

_HELP = """Make the graphs of a checkpoint's networks: ONNX models without weights, in LORIKEET_ARTIFACTS.

A graph belongs to an architecture. A second checkpoint of the same architecture makes nothing new.
"""


@app.command(help=_HELP)
def main(
    model: Annotated[
        Path,
        typer.Option(help="Checkpoint: a diffusers folder or a .safetensors file. Or the folder of a ControlNet."),
    ],
    low_rank: Annotated[
        LowRankMode,
        typer.Option(help="Layers that take LoRAs as inputs; linear includes the convolutions of one pixel."),
    ] = "linear",
    in_channels: Annotated[
        int | None, typer.Option(min=4, help="Input channels of the UNet: 8 or 12 for IC-Light. Default: its own.")
    ] = None,
) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no warnings between the progress lines
    try:
        architectures = read_architectures(model, in_channels)
        root = load_settings().artifacts_folder
        with exporting(root, lambda: console.print(f"waits for another export to {root}", markup=False)):
            _export_all(root, architectures, low_rank)
    except (ExportError, SettingsError, OSError) as error:
        console.print(f"lorikeet: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("lorikeet: stopped; finished graphs are kept")
        sys.exit(_INTERRUPTED)


def _export_all(root: Path, architectures: dict[str, Architecture], low_rank: LowRankMode) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("export", total=len(architectures))
        for name, architecture in architectures.items():
            mode = low_rank if architecture.kind in ADAPTABLE_KINDS else "none"
            key = ArtifactKey(architecture.kind, architecture.digest, mode)

            def show(phase: str, name: str = name) -> None:
                progress.update(task, description=f"{name}: {phase}")

            if _is_exported(root, key):
                console.print(f"{name}: exported already, {key.folder(root)}", markup=False)
            else:
                show("imports torch and diffusers")
                from export.make_artifact import make_artifact  # takes seconds, and is not needed when all exist

                begun = time.monotonic()
                folder = make_artifact(root, key, architecture, show)
                size = (folder / GRAPH_FILE).stat().st_size / 1000
                console.print(
                    f"{name}: exported in {time.monotonic() - begun:.1f} s, {size:.0f} kB, {folder}", markup=False
                )
            progress.advance(task)


def _is_exported(root: Path, key: ArtifactKey) -> bool:
    """Whether the artifact is there and complete. A damaged one is reported, and then made again."""
    try:
        return read_artifact(root, key) is not None
    except ArtifactError as error:
        console.print(f"{error}. It is made again now.", style="yellow", markup=False)
        return False


if __name__ == "__main__":
    app()
