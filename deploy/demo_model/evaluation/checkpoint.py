"""Evaluate a published checkpoint: `python -m deploy.demo_model.evaluation.checkpoint`. Prints one JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
import typer
from PIL import Image

from deploy.demo_model.evaluation import picture_metrics
from deploy.demo_model.evaluation.edit_cases import EditCase, held_out_cases
from deploy.demo_model.paths import CHECKPOINT
from deploy.demo_model.pipeline.image_generator import GUIDANCE, ImageGenerator, load_image_generator
from deploy.demo_model.pipeline.pictures import save_grid

STRONG, WEAK = 0.8, 0.3
CLOSE = 20.0  # dB
BATCH = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """Per cent of the cases that pass: `colour`, `shape` and `background` at `STRONG`, `close` at `WEAK`."""

    colour: float
    shape: float
    background: float
    close: float


def score(generator: ImageGenerator, cases: list[EditCase], steps: int, guidance: float, grid: Path | None) -> Score:
    """Generate each case at both strengths and measure. Writes rows of input, strong and weak pictures to `grid`."""
    strong = generate(generator, cases, STRONG, steps, guidance)
    weak = generate(generator, cases, WEAK, steps, guidance)
    if grid:
        rows = zip(_in_rows([case.picture for case in cases]), _in_rows(strong), _in_rows(weak), strict=True)
        save_grid([picture for three in rows for row in three for picture in row], BATCH, grid)
    after = list(zip(cases, strong, strict=True))
    return Score(
        colour=percent([picture_metrics.object_colour(picture) == case.colour for case, picture in after]),
        shape=percent([picture_metrics.object_shape(picture) == case.kind for case, picture in after]),
        background=percent([picture_metrics.same_background(picture, case.picture) for case, picture in after]),
        close=percent(
            [picture_metrics.psnr(now, case.picture) >= CLOSE for case, now in zip(cases, weak, strict=True)]
        ),
    )


def generate(
    generator: ImageGenerator, cases: list[EditCase], strength: float, steps: int, guidance: float
) -> list[Image.Image]:
    """A picture for each case; it depends on the case and its index."""
    generated: list[Image.Image] = []
    for row in _in_rows(cases):
        texts, pictures = [case.prompt for case in row], [case.picture for case in row]
        seed = len(generated)
        generated += generator.generate(texts, pictures, strength=strength, steps=steps, guidance=guidance, seed=seed)
    return generated


def _in_rows(items: list[T]) -> list[list[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def percent(passed: list[bool]) -> float:
    """The percent of True values, in per cent."""
    return round(100 * sum(passed) / len(passed), 1)


def main(
    checkpoint: Path = CHECKPOINT,
    cases: int = 100,
    steps: int = 20,
    guidance: float = GUIDANCE,
    threads: int = 2,
    grid: Path | None = None,
) -> None:
    """Edit held-out pictures with the model at CHECKPOINT and print how many results pass, in per cent."""
    torch.set_num_threads(threads)
    generator = load_image_generator(checkpoint)
    print(json.dumps(asdict(score(generator, held_out_cases(cases), steps, guidance, grid))))


if __name__ == "__main__":
    typer.run(main)
