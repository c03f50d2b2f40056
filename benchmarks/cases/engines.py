"""Bare calls of each network: OpenVINO relative to torch. And whether a row's bytes depend on what is beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_engines import VARIANTS, BareEngine, EngineVariant
from benchmarks.bench import Bench
from benchmarks.graphs import export_graphs
from benchmarks.pairs import Samples, alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject
from runtime.engines.placement import place
from runtime.networks.architecture import NetworkKind
from runtime.settings import load_settings

# The rows of a call in a request with guidance.
ROWS: dict[NetworkKind, int] = {"text_encoder": 1, "vae_encoder": 1, "unet": 2, "vae_decoder": 1}
_CALLS: dict[NetworkKind, int] = {"text_encoder": 2, "vae_encoder": 1, "vae_decoder": 1}  # in a request; UNet: steps
_NAMES: dict[NetworkKind, str] = {
    "text_encoder": "text encoder",
    "vae_encoder": "VAE encoder",
    "unet": "UNet, two rows",
    "vae_decoder": "VAE decoder",
}


def run(bench: Bench) -> Outcome:
    pixels, rounds = (64, 2) if bench.quick else (512, 5)
    checkpoint = bench.models.checkpoint("sd15")
    artifacts = export_graphs(bench, checkpoint)
    threads = len(os.sched_getaffinity(0))
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for kind, rows in ROWS.items():
        arguments = (checkpoint, artifacts, kind, rows, pixels, threads)
        samples = _measure(bench, *arguments, rounds)
        for variant in VARIANTS[1:]:
            label = f"SD 1.5, {pixels} px, {_NAMES[kind]}: a call in {variant}, relative to torch"
            figures.append(Figure(label, ratio(samples[variant], samples["torch"])))
        raw[kind] = {"seconds": samples, "same_bytes": _dependence(bench, *arguments)}
    precision = place(load_settings()).precision
    return Outcome(figures, raw, {"pixels": pixels, "rows": ROWS, "threads": threads, "precision": precision})


def forwards_speedup(seconds: Mapping[str, Samples], variant: EngineVariant, steps: int) -> float:
    """How many times faster all forward passes of a request of `steps` steps are in `variant` than in torch.

    `seconds`: network -> the samples of its calls by variant."""

    def total(name: str) -> float:
        return sum(_CALLS.get(kind, steps) * median(seconds[kind][name]) for kind in ROWS)

    return total("torch") / total(variant)


def _measure(
    bench: Bench,
    checkpoint: Path,
    artifacts: Path,
    kind: NetworkKind,
    rows: int,
    pixels: int,
    threads: int,
    rounds: int,
) -> Samples:
    """The seconds of calls by variant. Each variant has a process, which does nothing while another one is measured."""
    with ExitStack() as running:
        engines = {
            variant: running.enter_context(
                SubprocessObject(BareEngine, checkpoint, artifacts, kind, variant, rows, pixels, threads)
            )
            for variant in VARIANTS
        }
        calls: dict[str, Callable[[], float]] = {
            variant: partial(engine.call, "seconds", 1) for variant, engine in engines.items()
        }
        bench.progress(f"warming up: {_NAMES[kind]}")
        alternate(calls, range(1))
        return alternate(calls, bench.rounds(rounds))


def _dependence(
    bench: Bench, checkpoint: Path, artifacts: Path, kind: NetworkKind, rows: int, pixels: int, threads: int
) -> dict[str, dict[str, bool]]:
    """Variant -> what is changed -> whether the bytes of a row are the same."""
    bench.progress(f"comparing bytes: {_NAMES[kind]}")
    found: dict[str, dict[str, bool]] = {}
    for variant in VARIANTS:
        common: tuple[Any, ...] = (checkpoint, artifacts, kind, variant)
        with (
            SubprocessObject(BareEngine, *common, 2, pixels, threads) as two,
            SubprocessObject(BareEngine, *common, 1, pixels, threads) as one,
        ):
            row, neighbour = two.call("bytes_of_rows", [1, 2])
            found[variant] = {
                "another neighbour": two.call("bytes_of_rows", [1, 3])[0] == row,
                "another place": two.call("bytes_of_rows", [2, 1]) == [neighbour, row],
                "alone": one.call("bytes_of_rows", [1]) == [row],
                "again": two.call("bytes_of_rows", [1, 2]) == [row, neighbour],
            }
        with SubprocessObject(BareEngine, *common, 2, pixels, 1) as slow:
            found[variant]["one thread"] = slow.call("bytes_of_rows", [1, 2])[0] == row
    return found
