"""`python -m export` in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from runtime.settings import ROOT


class Export(NamedTuple):
    """The folder of artifacts after an export, the command's exit status, and what it printed."""

    artifacts: Path
    status: int
    output: str

    def copy(self, folder: Path) -> Path:
        """A copy of the artifacts in a new folder, for a test that changes them."""
        shutil.copytree(self.artifacts, folder)
        return folder


def export(model: Path, artifacts: Path, *options: str) -> Export:
    """Export a checkpoint's graphs into the folder `artifacts`."""
    command = [sys.executable, "-m", "export", "--model", str(model), *options]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"LORIKEET_ARTIFACTS": str(artifacts)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Export(artifacts, done.returncode, done.stdout)
