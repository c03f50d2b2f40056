"""The virtual environment: created by the system's Python, with the packages of requirements.lock."""

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
    is_complete,
    mark_complete,
    say,
    shown,
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
        return is_complete(self._stamp, self._key())

    def check_system(self) -> None:
        """Raise SetupError if the Debian package of venv is missing."""
        try:
            from ensurepip import version  # noqa: F401 (Debian packages it separately)
        except ImportError:
            package = f"python{PYTHON_VERSION}-venv"
            raise SetupError(f"Python's venv module is incomplete: apt-get install {package}") from None

    def make(self) -> None:
        """Create the environment, or resume an interrupted call: pip skips installed packages."""
        with exclusive(self._beside(".lock")):
            if self.is_ready():
                return
            self._stamp.unlink(missing_ok=True)
            self._fill()
            mark_complete(self._stamp, self._key())
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
        self._remove_partial_packages()
        step.run("[1/3] pip", *pip, "--upgrade", "pip")
        # torch first, so that packages that depend on it use this version and not the newest
        step.run("[2/3] torch", *pip, *locked, "torch")
        step.run("[3/3] Lorikeet and its dependencies (1 to 2 minutes)", *pip, *locked, *editable_projects())
        step.run("checking that the packages are compatible", self.python, "-m", "pip", "check")

    def _remove_partial_packages(self) -> None:
        # pip writes INSTALLER last; a package without it is incomplete, but pip would count it as installed
        for package in self.folder.glob("lib/python3.*/site-packages/*.dist-info"):
            if not (package / "INSTALLER").exists():
                shutil.rmtree(package)

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(self.folder.name + suffix)


def editable_projects() -> list[str]:
    client = ["--editable", "./client[gateway]"] if (ROOT / "client" / "pyproject.toml").exists() else []
    return ["--editable", ".[dev,export,tensorrt-rtx]", *client]
