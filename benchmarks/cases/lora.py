"""The time that a LoRA adds before the first denoising step: a new LoRA, and a cached one.

The weight budget is full, as in a server that has run for a while: a new weight set evicts a cached one.

The encoders run before the first step too. The LoRAs change only the UNet, so the encoders' time does not depend on
them. It varies by 0.1 s, as much as the time to measure, so it is a figure of its own.
"""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.diffusers_baseline import DiffusersBaseline
from benchmarks.first_step import PIXELS, FirstStepTimer
from benchmarks.models import RANK, unet_bytes
from benchmarks.pairs import alternate, difference
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject
from runtime.engines.placement import place
from runtime.settings import load_settings

_BUDGET = 1.5  # times the UNet's bytes: the checkpoint and four LoRAs
_LORAS_TO_FILL_BUDGET = 6


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 40
    model = bench.models.checkpoint("sd15")
    fresh = iter([bench.models.lora(number) for number in range(_LORAS_TO_FILL_BUDGET + rounds)])
    last = [next(fresh)]
    budget = int(_BUDGET * unet_bytes(model, place(load_settings()).precision))
    with bench.server(weights_bytes=str(budget)) as server, SubprocessObject(DiffusersBaseline, model) as diffusers:
        timer = FirstStepTimer(bench, server, model)

        def new() -> float:
            last[0] = next(fresh)
            return timer.seconds("new", last)

        variants = {
            "without": lambda: timer.seconds("without"),
            "new": new,
            "seen": lambda: timer.seconds("seen", last),
            "diffusers": lambda: diffusers.call("fuse", last[0]),
        }
        bench.progress("warming up: the server, diffusers")
        alternate({name: variant for name, variant in variants.items() if name != "new"}, range(2))
        alternate({"new": new}, range(_LORAS_TO_FILL_BUDGET - 1))
        samples = alternate(variants, bench.rounds(rounds))
        settings = {"pixels": PIXELS, "rank": RANK, "weights_bytes": budget, "baseline": diffusers.call("about")}
        settings["triton"] = server.triton_version()
    encoding = {name: seconds[-rounds:] for name, seconds in timer.encoding.items()}  # without the warm-up
    added_new, added_cached = (difference(samples[name], samples["without"]) for name in ("new", "seen"))
    encoder_change = difference(encoding["new"], encoding["without"])
    new_lora = f"New LoRA, rank {RANK}, local file"
    return Outcome(
        [
            Figure(f"{new_lora}: added time to first step", added_new, "s"),
            Figure(
                f"{new_lora}: added time to first step, relative to diffusers' load + fuse",
                added_new / median(samples["diffusers"]),
                at_most=0.25,
            ),
            Figure(f"{new_lora}: change of the encoders' time, not part of the added time", encoder_change, "s"),
            Figure(f"Cached LoRA, rank {RANK}: added time to first step", added_cached, "s", at_most=0.1),
        ],
        samples | {f"encoders, {name}": seconds for name, seconds in encoding.items()},
        settings,
    )
