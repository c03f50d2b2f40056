"""Evaluate the published style LoRAs: `python -m deploy.demo_model.evaluation.loras`. Prints one line a measurement."""

from __future__ import annotations

import torch
import typer

from deploy.demo_model.evaluation.checkpoint import STRONG, generate, percent
from deploy.demo_model.evaluation.edit_cases import EditCase, held_out_cases
from deploy.demo_model.evaluation.style_metrics import DEGREES, has_style
from deploy.demo_model.paths import CHECKPOINT, LORAS
from deploy.demo_model.pipeline.image_generator import GUIDANCE, ImageGenerator, load_image_generator
from deploy.demo_model.world.styles import STYLES

SCALES = (0.0, 0.5, 1.0)


def main(cases: int = 100, steps: int = 20, guidance: float = GUIDANCE, threads: int = 2) -> None:
    """Edit held-out pictures with each style LoRA at three scales, and with both; print the share with the style."""
    torch.set_num_threads(threads)
    generator, judged = load_image_generator(CHECKPOINT), held_out_cases(cases)
    for style in STYLES:
        for scale in SCALES:
            _report(generator, judged, {style: scale}, steps, guidance)
    _report(generator, judged, dict.fromkeys(STYLES, 1.0), steps, guidance)


def _report(
    generator: ImageGenerator, cases: list[EditCase], scales: dict[str, float], steps: int, guidance: float
) -> None:
    generator.set_loras({LORAS / f"{style}.safetensors": scale for style, scale in scales.items()})
    pictures = generate(generator, cases, STRONG, steps, guidance)
    for style in scales:
        shown = percent([has_style(picture, style) for picture in pictures])
        degree = sum(DEGREES[style](picture) for picture in pictures) / len(pictures)
        print(f"{scales}: {style} shows in {shown} %, mean degree {degree:.2f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
