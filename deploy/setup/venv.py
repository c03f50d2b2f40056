"""The virtual environment: made by the system's Python, filled from requirements.lock."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.setup.common import (
    PYTHON_VERSION,
    ROOT,
    SetupError,
    Step,
    digest,
    exclusive,
    is_stamped,
    say,
    shown,
    write_stamp,
)

LOCK = ROOT / "requirements.lock"
INPUTS = (LOCK, ROOT / "pyproject.toml", ROOT / "client" / "pyproject.toml", Path(__file__))


@dataclass(frozen=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def _stamp(self) -> Path:
        return self.folder / ".stamp"

    def _key(self) -> str:
        return digest(*INPUTS, salt=f"{self.folder} {sys.executable} {sys.version}")

    def is_ready(self) -> bool:
        return is_stamped(self._stamp, self._key())

    def check_system(self) -> None:
        """Raise SetupError where a Debian package is missing."""
        try:
            from ensurepip import version  # noqa: F401 (Debian cuts it out of Python)
        except ImportError:
            package = f"python{PYTHON_VERSION}-venv"
            raise SetupError(f"Python's venv module is incomplete: apt-get install {package}") from None

    def make(self) -> None:
        """Make the environment, or go on where an earlier call stopped: pip skips what is already right."""
        with exclusive(self._beside(".lock")):
            if self.is_ready():
                return
            self._stamp.unlink(missing_ok=True)
            self._fill()
            write_stamp(self._stamp, self._key())
            say(f"{shown(self.folder)} is ready")

    def _fill(self) -> None:
        interpreter = Path(sys.executable).resolve()
        step = Step(self._beside(".log"))
        pip = (self.python, "-m", "pip", "install", "--quiet")
        locked = ("--constraint", LOCK)

        made_by_other = not self.python.exists() or self.python.resolve() != interpreter
        step.run(
            f"Python environment {shown(self.folder)} ({interpreter})",
            *(interpreter, "-m", "venv", self.folder),
            *(["--clear"] if made_by_other else []),
        )
        self._forget_cut_off_packages()
        step.run("[1/3] pip", *pip, "--upgrade", "pip")
        # first and alone: whatever depends on torch then takes this one and not the registry's newest
        step.run("[2/3] torch", *pip, *locked, "torch")
        step.run("[3/3] Lorikeet and what it needs (1 to 2 minutes)", *pip, *locked, *editable_projects())
        step.run("checking that everything fits together", self.python, "-m", "pip", "check")

    def _forget_cut_off_packages(self) -> None:
        # pip writes INSTALLER after a package's files; without it, pip would take a part for the whole
        for package in self.folder.glob("lib/python3.*/site-packages/*.dist-info"):
            if not (package / "INSTALLER").exists():
                shutil.rmtree(package)

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(self.folder.name + suffix)


def editable_projects() -> list[str]:
    client = ["--editable", "./client"] if (ROOT / "client" / "pyproject.toml").exists() else []
    return ["--editable", ".[dev]", *client]
