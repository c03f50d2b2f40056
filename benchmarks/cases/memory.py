"""Memory growth: of the denoiser after one checkpoint and after ten LoRAs, of all stages over mixed requests."""

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
_BUDGET = 1.5  # times the UNet's bytes: the checkpoint and some of the LoRAs
_SLACK = 0.25  # times the UNet's bytes: memory besides weights and interpreter
_WARM_UP = 30
_SETTLE_SECONDS = 1.0


def run(bench: Bench) -> Outcome:
    pixels, mixed_requests = (64, 10) if bench.quick else (256, 200)
    model = bench.models.checkpoint("sd15")
    loras = [str(bench.models.lora(number)) for number in range(_LORAS)]
    precision = place(load_settings()).precision
    unet = unet_bytes(model, precision)
    budget = int(_BUDGET * unet)
    with bench.server(weights_bytes=str(budget)) as server:
        begin = server.stage_private_bytes()

        def send(size: int, **fields: Any) -> None:
            all_fields = bench.requests.next(size).fields | {"num_inference_steps": 2} | fields
            server.timed_request(model_name=str(model), **all_fields)

        def growth_since_start() -> dict[str, int]:
            """Each stage's private bytes beyond those at its start."""
            time.sleep(_SETTLE_SECONDS)
            return {stage: size - begin[stage] for stage, size in server.stage_private_bytes().items()}

        for _ in bench.rounds(10, "request without a LoRA"):
            send(pixels)
        one_checkpoint = growth_since_start()
        for number in bench.rounds(_LORAS, "LoRA"):
            send(pixels, loras=[{"path": loras[number]}])
        ten_loras = growth_since_start()
        kinds = cycle(_mixed(pixels, loras))
        for _ in bench.rounds(_WARM_UP, "mixed request, warm-up"):
            send(**next(kinds))
        before = growth_since_start()
        for _ in bench.rounds(mixed_requests, "mixed request"):
            send(**next(kinds))
        after = growth_since_start()
        settings = {"precision": precision, "unet_bytes": unet, "weights_bytes": budget}
        settings["triton"] = server.triton_version()
    growth = sum(after.values()) / sum(before.values()) - 1
    return Outcome(
        [
            Figure(
                "SD 1.5: denoiser's memory growth over the first 10 requests, relative to the UNet's size",
                one_checkpoint["denoiser"] / unet,
                at_most=1.25,
            ),
            Figure(
                "SD 1.5: denoiser's memory growth after ten LoRAs, relative to weight budget + 1/4 of the UNet's size",
                ten_loras["denoiser"] / (budget + _SLACK * unet),
                at_most=1.0,
            ),
            Figure(
                f"SD 1.5: growth of all stages' memory over {mixed_requests} mixed requests",
                100 * growth,
                "%",
                at_most=2.0,
            ),
        ],
        {"begin": begin, "one_checkpoint": one_checkpoint, "ten_loras": ten_loras, "before": before, "after": after},
        settings,
    )


def _mixed(pixels: int, loras: list[str]) -> list[dict[str, Any]]:
    """Fields of small requests with varied sizes, schedulers, guidance, and more LoRAs than fit the budget."""
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
