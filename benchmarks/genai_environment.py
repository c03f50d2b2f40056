"""The environment of the peer openvino_genai. It needs other versions than the server, so it has its own packages."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.setup.common import ENVIRONMENT, ROOT, Step, digest, exclusive, is_complete, mark_complete

_REQUIREMENTS = ROOT / "benchmarks" / "genai_requirements.txt"
_NAMED = ("openvino", "openvino-genai", "optimum-intel")
_CONVERTER = "optimum-intel==2.2.0"  # without its dependencies: see the requirements


@dataclass(frozen=True)
class GenaiEnvironment:
    """A virtual environment in `folder`."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self) -> None:
        """Create the environment, or do nothing if it is complete. Raises SetupError."""
        stamp, key = self.folder / ".stamp", digest(_REQUIREMENTS, salt=f"{_CONVERTER} {sys.version}")
        with exclusive(self.folder.with_name(f"{self.folder.name}.lock")):
            if is_complete(stamp, key):
                return
            step = Step(self.folder.with_name(f"{self.folder.name}.log"))
            pip = (self.python, "-m", "pip", "install", "--quiet")
            step.run("Python environment of openvino_genai", sys.executable, "-m", "venv", "--clear", self.folder)
            step.run("openvino_genai and its converter (2 minutes)", *pip, "--requirement", _REQUIREMENTS)
            step.run("optimum-intel", *pip, "--no-deps", _CONVERTER)
            mark_complete(stamp, key)

    def versions(self) -> dict[str, str]:
        """Package -> version, of those that run and convert models."""
        listed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
        )
        found = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
        return {name: found[name] for name in _NAMED}

    def convert(self, checkpoint: Path, folder: Path) -> None:
        """Write the checkpoint, a diffusers folder, in float32 for openvino_genai to `folder`.

        Raises CalledProcessError; the converter's last lines are in `stderr`."""
        command = [self.folder / "bin" / "optimum-cli", "export", "openvino", "--model", checkpoint.absolute()]
        subprocess.run(
            [*map(str, command), "--task", "image-to-image", "--weight-format", "fp32", str(folder.absolute())],
            check=True,
            capture_output=True,
            text=True,
            env=ENVIRONMENT | {"HF_HUB_OFFLINE": "1"},
        )
