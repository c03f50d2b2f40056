"""The cases, a module each, in the order of the README's table."""

from __future__ import annotations

from importlib import import_module

from benchmarks.bench import Bench
from benchmarks.results import Outcome

# Module -> what its figures are headed with.
CASES = {
    "end_to_end": "SD 1.5, 256 px, 8 steps",
    "lora": "A LoRA of rank 16, file on local disk",
    "mixed": "Eight requests at once, long and short",
    "loading": "While another checkpoint loads",
    "memory": "Memory, SD 1.5, less interpreter and libraries",
    "sdxl": "SDXL in bfloat16, 512 px",
    "perf": "perf_analyzer, the demo's model, 128 px, 4 steps",
}


def run_case(name: str, bench: Bench) -> Outcome:
    """Run one of `CASES`, imported only now: those with a peer import torch and diffusers."""
    outcome = import_module(f"benchmarks.cases.{name}").run(bench)
    assert isinstance(outcome, Outcome)
    return outcome
