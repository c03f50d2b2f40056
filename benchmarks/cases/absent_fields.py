"""What a UNet's inputs cost the calls that do not use them, in OpenVINO: LoRAs, ControlNets and IP-Adapters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.bare_engines import BareEngine
from benchmarks.bench import Bench
from benchmarks.cases.engines import ROWS
from benchmarks.pairs import Samples, alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject
from benchmarks.unet_forms import FORMS, export_form
from runtime.networks.architecture import Architecture, architecture_of

_PLAIN, _SERVED, *_LOW_RANK = FORMS


def run(bench: Bench) -> Outcome:
    pixels, rounds = (64, 2) if bench.quick else (512, 7)
    checkpoint = bench.models.checkpoint("sd15")
    architecture = _unet(checkpoint)
    threads = len(os.sched_getaffinity(0))
    with ExitStack() as running:
        calls: dict[str, Callable[[], float]] = {}
        for number, form in enumerate(FORMS):
            artifacts = bench.folder / f"form-{number}"
            bench.progress(f"exporting and compiling: {form}")
            export_form(form, architecture, artifacts, lambda _: None)
            arguments = (checkpoint, artifacts, "unet", "openvino", ROWS["unet"], pixels, threads)
            engine = running.enter_context(SubprocessObject(BareEngine, *arguments))
            precision = engine.call("precision")
            calls[form] = partial(engine.call, "seconds", 1)
        alternate(calls, range(1))
        samples = alternate(calls, bench.rounds(rounds))
    setup = f"SD 1.5, {pixels} px, OpenVINO: a UNet call of {ROWS['unet']} rows"
    return Outcome(figures(samples, setup), samples, {"pixels": pixels, "threads": threads, "precision": precision})


def figures(samples: Samples, setup: str) -> list[Figure]:
    """The served graph has the inputs of residuals and image prompts. One for LoRAs is a variant, because the others
    cost more than the limit."""
    unused = f"{setup} without ControlNet and IP-Adapter, relative to a graph without their inputs"
    found = [Figure(unused, ratio(samples[_SERVED], samples[_PLAIN]), at_most=1.02)]
    for form in _LOW_RANK:
        figure = f"{setup} without LoRA in the graph with {form}, relative to that with none"
        found.append(Figure(figure, ratio(samples[form], samples[_SERVED])))
    return found


def _unet(checkpoint: Path) -> Architecture:
    return architecture_of("unet", json.loads((checkpoint / "unet" / "config.json").read_text()))
