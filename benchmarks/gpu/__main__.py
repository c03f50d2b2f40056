"""`python -m benchmarks.gpu RESULT`: all measures on a machine with an NVIDIA GPU, within a time limit."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.gpu import parity
from benchmarks.gpu.models import GpuModels
from benchmarks.gpu.peer import PeerForm
from benchmarks.gpu.speed import Speed
from export.free_memory import free_memory

_STEPS = 30
_PIXELS = {"sd15": 512, "distilled": 512, "sdxl": 1024}
_ROUNDS = 5
_CALLS = 30
_EAGER_FORMS: tuple[PeerForm, ...] = ("eager", "channels_last")


class Sections:
    """Measures one section after the other, and writes the result after each. An error ends its section only."""

    def __init__(self, result: Path, commit: str, deadline: float, only: list[str]) -> None:
        self._result, self._deadline, self._only = result, deadline, only
        self._found: dict[str, Any] = {"machine": _machine(commit), "sections": {}, "seconds": {}}

    def add(self, name: str, needs: float, measure: Callable[[], Any]) -> None:
        """Measure unless less than `needs` seconds are left."""
        if self._only and not any(name.startswith(prefix) for prefix in self._only):
            return
        begun = time.monotonic()
        if begun + needs > self._deadline:
            self._keep(name, "not measured: no time left", begun)
            return
        try:
            self._keep(name, measure(), begun)
        except Exception as error:
            self._keep(name, f"failed: {type(error).__name__}: {str(error)[:500]}", begun)
        free_memory()

    def _keep(self, name: str, value: Any, begun: float) -> None:
        self._found["sections"][name] = value
        self._found["seconds"][name] = round(time.monotonic() - begun, 1)
        self._result.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name} ({self._found['seconds'][name]} s): {json.dumps(value)[:1500]}\n")
        sys.stdout.flush()


def main(
    result: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    commit: Annotated[str, typer.Option(help="The commit that is measured.")] = "unknown",
    seconds: Annotated[float, typer.Option(help="Time limit: what would exceed it is left out.")] = 540,
    only: Annotated[list[str] | None, typer.Option(help="Measure only sections that begin with this.")] = None,
) -> None:
    """Measure the torch engine on this machine's GPU."""
    sections = Sections(result, commit, time.monotonic() + seconds, only or [])
    with tempfile.TemporaryDirectory(prefix="lorikeet-gpu-") as folder:
        models = GpuModels(Path(folder) / "models")
        checkpoints = [CheckpointSections(sections, models, name, Path(folder)) for name in ("sd15", "sdxl")]
        for checkpoint in checkpoints:
            checkpoint.measure()
        _precisions(sections, models, "distilled")
        for checkpoint in checkpoints:
            checkpoint.measure_long()


class CheckpointSections:
    """The sections of one checkpoint."""

    def __init__(self, sections: Sections, models: GpuModels, name: str, folder: Path) -> None:
        self._sections, self._models, self._name = sections, models, name
        self._pixels = _PIXELS[name]
        self._speed = Speed(models, name, self._pixels, folder)
        self._bare = 0.0

    def measure(self) -> None:
        speed, models, name, pixels = self._speed, self._models, self._name, self._pixels
        self._add("checkpoint", 30, lambda: models.path(name).name)
        self._add("bare, ours", 10, self._measure_bare)
        for form in _EAGER_FORMS:
            self._add(f"bare, diffusers {form}", 15, partial(speed.bare, form, _CALLS))
        self._add("parity with diffusers", 20, lambda: parity.diffusers_unet(models, name, pixels))
        self._add("guarantees", 20, lambda: parity.guarantees(models, name, pixels))
        _precisions(self._sections, models, name)
        chain = speed.chain()
        self._add("loop", 30, lambda: speed.loop(chain, _STEPS, self._bare, 3))
        self._add("pictures", 20, lambda: speed.pictures(chain, 8))
        for form in _EAGER_FORMS:
            self._add(f"pairs, {form}", 30, partial(speed.pairs, chain, form, _STEPS, _ROUNDS))
        self._add("LoRAs", 30, lambda: speed.loras(chain, 10, 8))
        chain.close()

    def measure_long(self) -> None:
        """What takes long, and is left out first."""
        speed = self._speed
        chain = speed.chain()
        self._add("pairs, compiled", 100, partial(speed.pairs, chain, "compiled", _STEPS, _ROUNDS))
        chain.close()
        for rows in (2, 8, 16):
            self._add(f"throughput, {rows} rows", 30, partial(speed.throughput, _STEPS, rows, 16))

    def _measure_bare(self) -> float:
        self._bare = self._speed.our_bare(_CALLS)
        return self._bare

    def _add(self, section: str, needs: float, measure: Callable[[], Any]) -> None:
        self._sections.add(f"{self._name} {section}", needs, measure)


def _precisions(sections: Sections, models: GpuModels, name: str) -> None:
    sections.add(f"{name} precisions", 40, lambda: parity.precisions(models, name, _PIXELS[name]))


def _machine(commit: str) -> dict[str, Any]:
    libraries = ("torch", "diffusers", "transformers", "numpy")
    return {
        "gpu": torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": {name: version(name) for name in libraries},
        "commit": commit,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    typer.run(main)
