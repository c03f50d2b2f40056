"""What a LoRA costs before the first step: one never seen, and one seen before.

The weights' budget is full, as in a server that has run for a while: a new set takes the memory of one that is dropped.

The encoders run before the first step too. The LoRAs are of the UNet alone, so what the encoders take has nothing to do
with them; and it is now 0.1 s more, now less, as much as is to be measured. So it is told beside the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.diffusers_peer import DiffusersPeer
from benchmarks.models import unet_bytes
from benchmarks.pairs import alternate, difference
from benchmarks.peer import Peer
from benchmarks.results import Figure, Outcome
from runtime.engines.placement import place
from runtime.settings import load_settings

# A small picture: what a LoRA adds does not depend on it, and what else comes before the first step is noise here.
_PIXELS = 64
_BUDGET = 1.5  # of the UNet's bytes: the checkpoint, and four of the LoRAs
_TO_FILL_IT = 6
_ENCODERS = ("text_encoder", "vae_encoder")
_AFTER_THE_FIRST_STEP = ("denoiser", "vae_decoder", "finish")


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 40
    model = bench.models.checkpoint("sd15")
    fresh = iter([bench.models.lora(number) for number in range(_TO_FILL_IT + rounds)])
    last = [next(fresh)]
    budget = int(_BUDGET * unet_bytes(model, place(load_settings()).precision))
    encoders: dict[str, list[float]] = {"without": [], "new": [], "seen": []}
    with bench.server(weights_bytes=str(budget)) as server, Peer(DiffusersPeer, model) as diffusers:

        def first_step(side: str, *loras: Path) -> float:
            # Named as they lie in the server's own folder: the client sends no file along.
            named = [{"path": str(path.relative_to(bench.models.folder))} for path in loras]
            fields = bench.questions.next(_PIXELS).fields | {"loras": named}
            seconds, result = server.ask(model_name=str(model), num_inference_steps=1, **fields)
            encoding, rest = time_until_first_step(seconds, result.timings)
            encoders[side].append(encoding)
            return rest

        def new() -> float:
            last[0] = next(fresh)
            return first_step("new", last[0])

        sides = {
            "without": lambda: first_step("without"),
            "new": new,
            "seen": lambda: first_step("seen", last[0]),
            "diffusers": lambda: diffusers.call("fuse", last[0]),
        }
        bench.tell("warming up: a server, diffusers")
        alternate({name: side for name, side in sides.items() if name != "new"}, range(2))
        alternate({"new": new}, range(_TO_FILL_IT - 1))
        samples = alternate(sides, bench.rounds(rounds))
        settings = {"pixels": _PIXELS, "rank": 16, "weights_bytes": budget, "peer": diffusers.call("about")}
        settings["triton"] = server.triton_version()
    encoding = {name: seconds[-rounds:] for name, seconds in encoders.items()}  # without those of the warm-up
    added, seen = (difference(samples[name], samples["without"]) for name in ("new", "seen"))
    noise = difference(encoding["new"], encoding["without"])
    return Outcome(
        [
            Figure("never seen: added to the time to the first step", added, "s"),
            Figure("the same / diffusers' load + fuse", added / median(samples["diffusers"]), at_most=0.25),
            Figure("what the encoders happened to take more or less, beside it", noise, "s"),
            Figure("seen before: added to the time to the first step", seen, "s", at_most=0.1),
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
