"""What a LoRA costs before the first step: one never seen, and one seen before.

The weights' budget is full, as in a server that has run for a while: a new set takes the memory of one that is dropped.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.diffusers_peer import DiffusersPeer
from benchmarks.models import unet_bytes
from benchmarks.pairs import alternate, difference
from benchmarks.peer import Peer
from benchmarks.results import Figure, Outcome
from benchmarks.server import Serving
from runtime.engines.placement import place
from runtime.settings import load_settings

# A small picture: what a LoRA adds does not depend on it, and what else comes before the first step is noise here.
_PIXELS = 64
_BUDGET = 1.5  # of the UNet's bytes: the checkpoint, and four of the LoRAs
_TO_FILL_IT = 6
_AFTER_THE_FIRST_STEP = ("denoiser", "vae_decoder", "finish")


def run(bench: Bench) -> Outcome:
    # Many: the encoders, which come before the first step and are no part of this, take now more, now less.
    rounds = 2 if bench.quick else 40
    model = bench.models.checkpoint("sd15")
    fresh = iter([bench.models.lora(number) for number in range(_TO_FILL_IT + rounds)])
    last = [next(fresh)]
    budget = int(_BUDGET * unet_bytes(model, place(load_settings()).precision))
    with bench.server(weights_bytes=str(budget)) as server, Peer(DiffusersPeer, model) as diffusers:

        def first_step(*loras: Path) -> float:
            # Named as they lie in the server's own folder: the client sends no file along.
            named = [{"path": str(path.relative_to(bench.models.folder))} for path in loras]
            fields = bench.questions.next(_PIXELS).fields | {"loras": named}
            return _until_first_step(server, model_name=str(model), **fields)

        def new() -> float:
            last[0] = next(fresh)
            return first_step(last[0])

        sides = {
            "without": first_step,
            "new": new,
            "seen": lambda: first_step(last[0]),
            "diffusers": lambda: diffusers.call("fuse", last[0]),
        }
        bench.tell("warming up: a server, diffusers")
        alternate({name: side for name, side in sides.items() if name != "new"}, range(2))
        alternate({"new": new}, range(_TO_FILL_IT - 1))
        samples = alternate(sides, bench.rounds(rounds))
        settings = {"pixels": _PIXELS, "rank": 16, "weights_bytes": budget, "peer": diffusers.call("about")}
        settings["triton"] = server.triton_version()
    added, seen = (difference(samples[name], samples["without"]) for name in ("new", "seen"))
    return Outcome(
        [
            Figure("never seen: added to the time to the first step", added, "s"),
            Figure("the same / diffusers' load + fuse", added / median(samples["diffusers"]), at_most=0.25),
            Figure("seen before: added to the time to the first step", seen, "s", at_most=0.1),
        ],
        dict(samples),
        settings,
    )


def _until_first_step(server: Serving, **fields: object) -> float:
    """Seconds of a request of one step, less what came when that step began: so is only measured what a LoRA can
    change."""
    seconds, result = server.ask(num_inference_steps=1, **fields)
    return seconds - sum(result.timings[stage] for stage in _AFTER_THE_FIRST_STEP)
