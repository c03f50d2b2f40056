"""The exported graphs of models, which servers and bare engines run in OpenVINO."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import Bench
from runtime.settings import ROOT


def export_graphs(bench: Bench, *models: Path) -> Path:
    """The artifacts' folder of this run, with the graphs of the checkpoints and other networks."""
    artifacts = bench.folder / "artifacts"
    bench.progress("exporting the graphs")
    command = [sys.executable, "-m", "export", *(part for model in models for part in ("--model", str(model)))]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"LORIKEET_ARTIFACTS": str(artifacts)}, check=True)
    return artifacts
