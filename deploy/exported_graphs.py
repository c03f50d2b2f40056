"""Makes the graphs of models before a server starts, so that the server runs them in OpenVINO."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from export.architectures import read_architectures
from export.errors import ExportError
from runtime.artifacts.artifact import ArtifactError
from runtime.engines.compiled.graphs import read_graphs
from runtime.settings import ROOT, Settings, load_settings

_NVIDIA_DRIVER = Path("/dev/nvidiactl")  # without it, torch sees no GPU
_LIBRARIES = ("onnx", "openvino", "optimum")  # of the extra `export`


def export_missing(models: Sequence[Path]) -> None:
    """Export the local folders and files of `models` whose graphs are missing, if this machine uses graphs.

    The export prints its progress and its errors. Without graphs, the server runs a model in torch. Raises
    SettingsError.
    """
    settings = load_settings()
    if not _uses_openvino(settings):
        return
    missing = [model for model in models if not _is_exported(model, settings.artifacts_folder)]
    if missing:
        named = [text for model in missing for text in ("--model", str(model))]
        subprocess.run([sys.executable, "-m", "export", *named], cwd=ROOT, check=False)


def _uses_openvino(settings: Settings) -> bool:
    """Whether a server with these settings runs graphs in OpenVINO."""
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and _NVIDIA_DRIVER.exists())
    return settings.engine != "torch" and not on_gpu and all(map(find_spec, _LIBRARIES))


def _is_exported(model: Path, root: Path) -> bool:
    """Whether all graphs of the model are in the folder `root` and complete."""
    try:
        return all(read_graphs(root, architecture) for architecture in read_architectures(model).values())
    except (ArtifactError, ExportError):  # the export says what is wrong
        return False
