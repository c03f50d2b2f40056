"""The bindings of each TensorRT, and what mypy's stubgen says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from runtime.settings import ROOT

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# What the bindings need of TensorRT's libraries when they are imported. The libraries themselves need NVIDIA's servers.
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


@dataclass(frozen=True)
class Bindings:
    """One version of a package's bindings.

    stub: its place. module: that has the classes. wheel: what to download; "" if set-up installs it.
    """

    stub: Path
    module: str
    wheel: str = ""

    @property
    def title(self) -> str:
        return self.wheel or "tensorrt_rtx as installed"


_TYPINGS = ROOT / "typings"
BINDINGS = {
    "tensorrt_rtx": Bindings(_TYPINGS / "tensorrt_rtx.pyi", "tensorrt_rtx_bindings.tensorrt_rtx"),
    **{
        f"tensorrt-{version.split('.')[0]}": Bindings(
            _TYPINGS / f"tensorrt-{version.split('.')[0]}" / "tensorrt.pyi",
            "tensorrt_bindings.tensorrt",
            f"tensorrt-cu13-bindings=={version}",
        )
        for version in ("10.16.1.11", "11.4.0.106")
    },
}


def raw_stub(bindings: Bindings) -> str:
    """The stub of all classes, from the signatures that pybind11 writes into the documentation."""
    with tempfile.TemporaryDirectory(prefix="lorikeet-stubs-") as name, _importable(bindings, Path(name)) as variables:
        out = Path(name) / "out"
        stubgen = str(Path(sys.executable).with_name("stubgen"))  # mypy's package cannot be run
        command = [stubgen, "--quiet", "--module", bindings.module, "--output", str(out)]
        subprocess.run(command, cwd=name, env=os.environ | variables, check=True)
        return out.joinpath(*bindings.module.split(".")).with_suffix(".pyi").read_text("utf-8")


@contextmanager
def _importable(bindings: Bindings, folder: Path) -> Iterator[dict[str, str]]:
    """Environment variables with which Python imports the bindings."""
    if not bindings.wheel:
        yield {}
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), bindings.wheel]
    subprocess.run(command, check=True)
    with ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    major = bindings.wheel.partition("==")[2].split(".")[0]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        subprocess.run(["cc", "-shared", "-o", folder / f"lib{library}.so.{major}", source], check=True)
    yield {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
