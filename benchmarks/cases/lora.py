"""The time that a LoRA adds before the first denoising step: a new LoRA, and a cached one.

The weight budget is full, as in a server that has run for a while: a new weight set evicts a cached one.

The encoders run before the first step too. The LoRAs change only the UNet, so the encoders' time does not depend on
them. It varies by 0.1 s, as much as the time to measure, so it is a figure of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.diffusers_baseline import DiffusersBaseline
from benchmarks.lora_files import RANK
from benchmarks.models import unet_bytes
from benchmarks.pairs import alternate, difference
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject
from runtime.engines.placement import place
from runtime.settings import load_settings

# A small picture: the added time does not depend on its size, and the other work before the first step is noise.
_PIXELS = 64
_BUDGET = 1.5  # times the UNet's bytes: the checkpoint and four LoRAs
_LORAS_TO_FILL_BUDGET = 6
_ENCODERS = ("text_encoder", "vae_encoder")
_AFTER_THE_FIRST_STEP = ("denoiser", "vae_decoder", "finish")


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 40
    model = bench.models.checkpoint("sd15")
    fresh = iter([bench.models.lora(number) for number in range(_LORAS_TO_FILL_BUDGET + rounds)])
    last = [next(fresh)]
    budget = int(_BUDGET * unet_bytes(model, place(load_settings()).precision))
    encoders: dict[str, list[float]] = {"without": [], "new": [], "seen": []}
    with bench.server(weights_bytes=str(budget)) as server, SubprocessObject(DiffusersBaseline, model) as diffusers:

        def first_step(variant: str, *loras: Path) -> float:
            # Paths in the server's own folder: the client uploads no file.
            loras_field = [{"path": str(path.relative_to(bench.models.folder))} for path in loras]
            fields = bench.requests.next(_PIXELS).fields | {"loras": loras_field}
            seconds, result = server.timed_request(model_name=str(model), num_inference_steps=1, **fields)
            encoding, rest = time_until_first_step(seconds, result.timings)
            encoders[variant].append(encoding)
            return rest

        def new() -> float:
            last[0] = next(fresh)
            return first_step("new", last[0])

        variants = {
            "without": lambda: first_step("without"),
            "new": new,
            "seen": lambda: first_step("seen", last[0]),
            "diffusers": lambda: diffusers.call("fuse", last[0]),
        }
        bench.progress("warming up: the server, diffusers")
        alternate({name: variant for name, variant in variants.items() if name != "new"}, range(2))
        alternate({"new": new}, range(_LORAS_TO_FILL_BUDGET - 1))
        samples = alternate(variants, bench.rounds(rounds))
        settings = {"pixels": _PIXELS, "rank": RANK, "weights_bytes": budget, "baseline": diffusers.call("about")}
        settings["triton"] = server.triton_version()
    encoding = {name: seconds[-rounds:] for name, seconds in encoders.items()}  # without the warm-up
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


def time_until_first_step(seconds: float, timings: Mapping[str, float]) -> tuple[float, float]:
    """Split a one-step request's time before its first step: seconds in the encoders, and seconds in all other stages.

    `timings` are the response's, by stage. The encoders run one after the other (the ensemble is a chain).
    """
    encoders = sum(timings[stage] for stage in _ENCODERS)
    return encoders, seconds - encoders - sum(timings[stage] for stage in _AFTER_THE_FIRST_STEP)
