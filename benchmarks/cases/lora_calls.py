"""Calls of the UNet in OpenVINO with two LoRAs as inputs, relative to calls without one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks.bare_engines import BareEngine
from benchmarks.bench import Bench
from benchmarks.cases.engines import ROWS
from benchmarks.graphs import export_graphs
from benchmarks.models import RANK
from benchmarks.pairs import alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject

_LIMITS = {"attention": 1.05, "attention and convolutions": 1.10}


def run(bench: Bench) -> Outcome:
    pixels, rounds = (64, 2) if bench.quick else (512, 7)
    checkpoint = bench.models.checkpoint("sd15")
    artifacts = export_graphs(bench, checkpoint)
    threads = len(os.sched_getaffinity(0))
    loras = {
        "none": [],
        "attention": [bench.models.lora(number) for number in range(2)],
        "attention and convolutions": [bench.models.locon(number) for number in range(2)],
    }
    with ExitStack() as running:
        calls: dict[str, Callable[[], float]] = {}
        for name, files in loras.items():
            arguments = (checkpoint, artifacts, "unet", "openvino", ROWS["unet"], pixels, threads, files)
            engine = running.enter_context(SubprocessObject(BareEngine, *arguments))
            bench.progress(f"compiling: {name}")
            precision = engine.call("precision")
            calls[name] = partial(engine.call, "seconds", 1)
        alternate(calls, range(1))
        samples = alternate(calls, bench.rounds(rounds))
    setup = f"SD 1.5, {pixels} px: a UNet call of {ROWS['unet']} rows in OpenVINO with two LoRAs of rank {RANK}"
    figures = [
        Figure(f"{setup} on {name}, relative to none", ratio(samples[name], samples["none"]), at_most=limit)
        for name, limit in _LIMITS.items()
    ]
    return Outcome(figures, dict(samples), {"pixels": pixels, "threads": threads, "precision": precision})
