"""A whole request against diffusers, and against the engines alone."""

from __future__ import annotations

from benchmarks.bare_forwards import BareForwards
from benchmarks.bench import Bench
from benchmarks.diffusers_peer import DiffusersPeer
from benchmarks.pairs import alternate, ratio
from benchmarks.peer import Peer
from benchmarks.results import Figure, Outcome


def run(bench: Bench) -> Outcome:
    pixels, steps, rounds = (64, 4, 2) if bench.quick else (256, 8, 7)
    model = bench.models.checkpoint("sd15")
    with bench.server() as server, Peer(DiffusersPeer, model) as diffusers, Peer(BareForwards, model) as bare:

        def ours() -> float:
            fields = bench.questions.next(pixels).fields
            seconds, result = server.ask(model_name=str(model), num_inference_steps=steps, **fields)
            precisions.add(result.response.precision)
            return seconds

        precisions: set[str] = set()
        sides = {
            "ours": ours,
            "diffusers": lambda: diffusers.call("generate", bench.questions.next(pixels), steps),
            "forwards": lambda: bare.call("run", pixels, steps),
        }
        bench.tell("warming up: a server, diffusers, the engines alone")
        alternate(sides, range(1))
        samples = alternate(sides, bench.rounds(rounds))
        peer = diffusers.call("about")
        assert precisions == {peer["dtype"]}, f"ours runs in {precisions}, diffusers in {peer['dtype']}"
        settings = {"pixels": pixels, "steps": steps, "peer": peer, "triton": server.triton_version()}
    return Outcome(
        [
            Figure("end to end / diffusers", ratio(samples["ours"], samples["diffusers"]), at_most=1.05),
            Figure("end to end / the forwards alone", ratio(samples["ours"], samples["forwards"]), at_most=1.06),
        ],
        dict(samples),
        settings,
    )
