"""The time of a whole request, relative to diffusers and to the network forward passes alone."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.diffusers_baseline import DiffusersBaseline
from benchmarks.forward_passes import ForwardPasses
from benchmarks.pairs import alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.subprocess_object import SubprocessObject


def run(bench: Bench) -> Outcome:
    pixels, steps, rounds = (64, 4, 2) if bench.quick else (256, 8, 7)
    model = bench.models.checkpoint("sd15")
    with (
        bench.server() as server,
        SubprocessObject(DiffusersBaseline, model) as diffusers,
        SubprocessObject(ForwardPasses, model, pixels) as passes,
    ):

        def ours() -> float:
            fields = bench.requests.next(pixels).fields
            seconds, result = server.timed_request(model_name=str(model), num_inference_steps=steps, **fields)
            precisions.add(result.response.receipt.engine.precision)
            return seconds

        precisions: set[str] = set()
        variants = {
            "ours": ours,
            "diffusers": lambda: diffusers.call("generate", bench.requests.next(pixels), steps),
            "forwards": lambda: passes.call("run", steps),
        }
        bench.progress("warming up: the server, diffusers, the forward passes")
        alternate(variants, range(1))
        samples = alternate(variants, bench.rounds(rounds))
        baseline = diffusers.call("about")
        assert precisions == {baseline["dtype"]}, f"the server runs in {precisions}, diffusers in {baseline['dtype']}"
        settings = {"pixels": pixels, "steps": steps, "baseline": baseline, "triton": server.triton_version()}
    setup = f"SD 1.5, {pixels} px, {steps} steps"
    return Outcome(
        [
            Figure(
                f"{setup}: request time, relative to diffusers",
                ratio(samples["ours"], samples["diffusers"]),
                at_most=1.05,
            ),
            Figure(
                f"{setup}: request time, relative to its network forward passes alone",
                ratio(samples["ours"], samples["forwards"]),
                at_most=1.06,
            ),
        ],
        dict(samples),
        settings,
    )
