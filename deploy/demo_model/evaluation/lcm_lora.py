"""Evaluate the published LCM-LoRA: `python -m deploy.demo_model.evaluation.lcm_lora`. Prints a line for each scale."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
import typer

from deploy.demo_model.evaluation.checkpoint import score
from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.paths import CHECKPOINT, LCM_LORA
from deploy.demo_model.pipeline.components import make_lcm_scheduler
from deploy.demo_model.pipeline.image_generator import LCM_STEPS, load_image_generator

SCALES = (0.0, 1.0)


def main(cases: int = 100, threads: int = 2, grid: Path | None = None) -> None:
    """Edit held-out pictures in `LCM_STEPS` steps of LCM without guidance; print how many results pass, in per cent."""
    torch.set_num_threads(threads)
    generator = replace(load_image_generator(CHECKPOINT), scheduler=make_lcm_scheduler)
    judged = held_out_cases(cases)
    for scale in SCALES:
        generator.set_loras({LCM_LORA: scale})
        found = asdict(score(generator, judged, LCM_STEPS, guidance=1.0, grid=grid))
        print(f"scale {scale}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
