"""What the denoiser holds: one checkpoint, ten LoRAs, and two hundred mixed requests later."""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any

from benchmarks.bench import Bench
from benchmarks.models import unet_bytes
from benchmarks.results import Figure, Outcome
from runtime.engines.placement import place
from runtime.settings import load_settings

_LORAS = 10
_BUDGET = 1.5  # of the UNet's bytes: the checkpoint, and some of the LoRAs
_SLACK = 0.25  # of the UNet's bytes, for what is neither weights nor interpreter
_WARM_UP = 30
_SETTLE_SECONDS = 1.0


def run(bench: Bench) -> Outcome:
    pixels, many = (64, 10) if bench.quick else (256, 200)
    model = bench.models.checkpoint("sd15")
    loras = [str(bench.models.lora(number)) for number in range(_LORAS)]
    precision = place(load_settings()).precision
    unet = unet_bytes(model, precision)
    budget = int(_BUDGET * unet)
    with bench.server(weights_bytes=str(budget)) as server:
        begin = server.private()

        def ask(size: int, **fields: Any) -> None:
            given = bench.questions.next(size).fields | {"num_inference_steps": 2} | fields
            server.ask(model_name=str(model), **given)

        def held() -> dict[str, int]:
            """Each stage's bytes beyond those that it began with."""
            time.sleep(_SETTLE_SECONDS)
            return {stage: now - begin[stage] for stage, now in server.private().items()}

        for _ in bench.rounds(10, "request without a LoRA"):
            ask(pixels)
        one_checkpoint = held()
        for number in bench.rounds(_LORAS, "LoRA"):
            ask(pixels, loras=[{"path": loras[number]}])
        ten_loras = held()
        kinds = cycle(_mixed(pixels, loras))
        for _ in bench.rounds(_WARM_UP, "mixed request before counting"):
            ask(**next(kinds))
        before = held()
        for _ in bench.rounds(many, "mixed request"):
            ask(**next(kinds))
        after = held()
        settings = {"precision": precision, "unet_bytes": unet, "weights_bytes": budget}
        settings["triton"] = server.triton_version()
    growth = sum(after.values()) / sum(before.values()) - 1
    return Outcome(
        [
            Figure("denoiser after 10 requests / the UNet's bytes", one_checkpoint["denoiser"] / unet, at_most=1.25),
            Figure(
                "denoiser, ten LoRAs seen / its budget and a quarter of the UNet's bytes",
                ten_loras["denoiser"] / (budget + _SLACK * unet),
                at_most=1.0,
            ),
            Figure(f"all stages, growth over {many} mixed requests", 100 * growth, "%", at_most=2.0),
        ],
        {"begin": begin, "one_checkpoint": one_checkpoint, "ten_loras": ten_loras, "before": before, "after": after},
        settings,
    )


def _mixed(pixels: int, loras: list[str]) -> list[dict[str, Any]]:
    """Kinds of request: sizes, LoRAs (more than fit), guidance, schedulers. Small, as there are many."""
    sizes, schedulers = (pixels // 4, pixels // 2, pixels * 3 // 8), ("DDIM", "Euler A", "DPM++ 2M Karras", "LCM")
    return [
        {
            "size": max(sizes[number % len(sizes)] // 8 * 8, 64),
            "loras": [{"path": path} for path in loras[number % 7 : number % 7 + number % 3]],
            "guidance_scale": 1.0 if number % 2 else 5.0,
            "scheduler": schedulers[number % len(schedulers)],
        }
        for number in range(_WARM_UP)
    ]
