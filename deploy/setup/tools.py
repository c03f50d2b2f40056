"""The tools folder: a real Triton server and perf_analyzer, unpacked from two wheels pinned by hash.

    triton/bin/tritonserver     the server; needs no installation
    triton/bin/perf_analyzer    the load generator; needs no installation (also at bin/perf_analyzer)
    triton/backends/            for --backend-directory; holds the stub of this environment's Python
    triton/caches/              for --cache-directory
    triton/wheel/               the unpacked server wheel, where its programs find their libraries

Every link inside is relative, so the folder can be moved or copied. The stub is a link because a copy of it
elsewhere would not find its libraries.
"""

import ctypes
import platform
import shutil
import tempfile
import zipfile
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

WHEELS = ROOT / "deploy" / "tools.lock"
SERVER = Path("wheel/pytriton/tritonserver")
LIBRARIES = Path("wheel/nvidia_pytriton.libs")
SERVER_PARTS = ("pytriton/tritonserver/", "nvidia_pytriton.libs/", "nvidia_pytriton-0.7.0.dist-info/")
PERF_ANALYZER = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
PERF_ANALYZER_LICENSE = "tritonclient-2.50.0.data/data/LICENSE.txt"
PERF_ANALYZER_NEEDS = ("libb64.so.0d", "libcudart.so.12")
PERF_ANALYZER_WRAPPER = """\
#!/bin/sh
# The program's two libraries are in ../perf_analyzer/lib under the names that it loads.
here=$(dirname "$(readlink -f "$0")")/../perf_analyzer
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/perf_analyzer" "$@"
"""


@dataclass(frozen=True)
class Tools:
    folder: Path
    # of the virtual environment in which the server runs its stages
    python: Path

    @property
    def _triton(self) -> Path:
        return self.folder / "triton"

    def _key(self) -> str:
        return digest(WHEELS, Path(__file__), salt=PYTHON_VERSION)

    def is_ready(self) -> bool:
        return is_complete(self._triton / ".stamp", self._key())

    def check_system(self) -> None:
        """Raise SetupError if the machine is not x86_64 or a Debian package is missing."""
        if platform.machine() != "x86_64":
            raise SetupError(f"the Triton server here is for x86_64; this machine is {platform.machine()}")
        library = f"libpython{PYTHON_VERSION}.so.1.0"
        try:
            ctypes.CDLL(library)
        except OSError:
            raise SetupError(f"{library} is missing: apt-get install libpython{PYTHON_VERSION}") from None

    def make(self) -> None:
        """Unpack to a temporary folder and rename it, so that an interrupted call leaves no partial result."""
        with exclusive(self.folder / ".lock"):
            if self.is_ready():
                return
            for left_over in self.folder.glob(".unpack-*"):
                shutil.rmtree(left_over)
            with tempfile.TemporaryDirectory(prefix=".unpack-", dir=self.folder) as name:
                self._make_aside(Path(name))
            link_program(self.folder)
            say(f"{shown(self.folder)} is ready")

    def _make_aside(self, scratch: Path) -> None:
        step = Step(self.folder / "setup.log")
        step.run(
            f"downloading the Triton server and perf_analyzer (70 MB) for {shown(self.folder)}",
            *(self.python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--require-hashes", "--requirement", WHEELS, "--dest", scratch / "wheels"),
        )
        say(f"unpacking them into {shown(self._triton)}")
        unpacked = scratch / "triton"
        unpack(scratch / "wheels", unpacked)
        link(unpacked)
        check_runs(unpacked, step)
        mark_complete(unpacked / ".stamp", self._key())
        if self._triton.exists():
            self._triton.rename(scratch / "old")
        unpacked.rename(self._triton)


def unpack(wheels: Path, triton: Path) -> None:
    with zipfile.ZipFile(next(wheels.glob("nvidia_pytriton-*.whl"))) as wheel:
        parts = [name for name in wheel.namelist() if name.startswith(SERVER_PARTS)]
        wheel.extractall(triton / "wheel", parts)
    with zipfile.ZipFile(next(wheels.glob("tritonclient-*.whl"))) as wheel:
        target = triton / "perf_analyzer"
        (target / "lib").mkdir(parents=True)
        for source in (PERF_ANALYZER, PERF_ANALYZER_LICENSE):
            (target / Path(source).name).write_bytes(wheel.read(source))
    # zipfile does not restore file modes
    programs = [triton / SERVER / "bin" / "tritonserver", triton / "perf_analyzer" / "perf_analyzer"]
    programs += (triton / SERVER / "python_backend_stubs").glob("*/triton_python_backend_stub")
    for program in programs:
        program.chmod(0o755)


def link(triton: Path) -> None:
    """The links and the wrapper that make the unpacked files one usable folder."""
    stub = triton / SERVER / "python_backend_stubs" / PYTHON_VERSION / "triton_python_backend_stub"
    (triton / "bin").mkdir()
    (triton / "bin" / "tritonserver").symlink_to(Path("..") / SERVER / "bin" / "tritonserver")
    wrapper = triton / "bin" / "perf_analyzer"
    wrapper.write_text(PERF_ANALYZER_WRAPPER)
    wrapper.chmod(0o755)

    backend = triton / "backends" / "python"
    backend.mkdir(parents=True)
    up = Path("../..")
    backend_files = [*sorted((triton / SERVER / "backends" / "python").iterdir()), stub]
    for file in backend_files:
        (backend / file.name).symlink_to(up / file.relative_to(triton))
    (triton / "caches").symlink_to(SERVER / "caches")

    for plain in PERF_ANALYZER_NEEDS:
        stem, suffix = plain.split(".so.")
        mangled = next((triton / LIBRARIES).glob(f"{stem}-*.so.{suffix}*"))
        (triton / "perf_analyzer" / "lib" / plain).symlink_to(up / LIBRARIES / mangled.name)


def link_program(tools: Path) -> None:
    program = tools / "bin" / "perf_analyzer"
    program.parent.mkdir(exist_ok=True)
    program.unlink(missing_ok=True)
    program.symlink_to("../triton/bin/perf_analyzer")


def check_runs(triton: Path, step: Step) -> None:
    """Start each program once, so that a missing library or an old glibc fails here and not at the first request."""
    programs = (
        ("the Triton server", triton / "bin" / "tritonserver", "--help"),
        ("its Python stub", triton / "backends" / "python" / "triton_python_backend_stub", "--help"),
        ("perf_analyzer", triton / "bin" / "perf_analyzer", "--version"),
    )
    for name, program, argument in programs:
        # the programs exit with 0 or 1 for these arguments; the loader exits with 127 if a library is missing
        step.run(f"checking that {name} starts", program, argument, passes=(0, 1))
