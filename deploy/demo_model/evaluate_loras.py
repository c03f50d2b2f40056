"""Judge the published style LoRAs: `python -m deploy.demo_model.evaluate_loras`. Prints one line a measurement."""

from __future__ import annotations

import torch
import typer

from deploy.demo_model.cases import Case, held_out_cases
from deploy.demo_model.evaluate import STRONG, paint, share
from deploy.demo_model.painter import GUIDANCE, Painter, load_painter
from deploy.demo_model.paths import CHECKPOINT, LORAS
from deploy.demo_model.style_measure import DEGREES, shows
from deploy.demo_model.styles import STYLES

SCALES = (0.0, 0.5, 1.0)


def main(cases: int = 100, steps: int = 20, guidance: float = GUIDANCE, threads: int = 2) -> None:
    """Paint held-out cases with each style at three scales and with both, and print what shows."""
    torch.set_num_threads(threads)
    painter, judged = load_painter(CHECKPOINT), held_out_cases(cases)
    for style in STYLES:
        for scale in SCALES:
            _report(painter, judged, {style: scale}, steps, guidance)
    _report(painter, judged, dict.fromkeys(STYLES, 1.0), steps, guidance)


def _report(painter: Painter, cases: list[Case], scales: dict[str, float], steps: int, guidance: float) -> None:
    painter.wear({LORAS / f"{style}.safetensors": scale for style, scale in scales.items()})
    pictures = paint(painter, cases, STRONG, steps, guidance)
    for style in scales:
        shown = share([shows(picture, style) for picture in pictures])
        degree = sum(DEGREES[style](picture) for picture in pictures) / len(pictures)
        print(f"{scales}: {style} shows in {shown} %, mean degree {degree:.2f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
