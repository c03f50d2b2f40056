"""Judge a published checkpoint: `python -m deploy.demo_model.evaluation.checkpoint`. Prints one JSON object."""

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
    """Of all cases, the share in per cent in which the picture is right: three times at `STRONG`, once at `WEAK`."""

    colour: float
    shape: float
    background: float
    close: float


def score(generator: ImageGenerator, cases: list[EditCase], steps: int, guidance: float, grid: Path | None) -> Score:
    """Paint every case twice and measure; the pictures go to `grid` as before, strong, weak in threes of rows."""
    strong = paint(generator, cases, STRONG, steps, guidance)
    weak = paint(generator, cases, WEAK, steps, guidance)
    if grid:
        rows = zip(_in_rows([case.picture for case in cases]), _in_rows(strong), _in_rows(weak), strict=True)
        save_grid([picture for three in rows for row in three for picture in row], BATCH, grid)
    after = list(zip(cases, strong, strict=True))
    return Score(
        colour=share([picture_metrics.object_colour(picture) == case.colour for case, picture in after]),
        shape=share([picture_metrics.object_shape(picture) == case.kind for case, picture in after]),
        background=share([picture_metrics.same_background(picture, case.picture) for case, picture in after]),
        close=share([picture_metrics.psnr(now, case.picture) >= CLOSE for case, now in zip(cases, weak, strict=True)]),
    )


def paint(
    generator: ImageGenerator, cases: list[EditCase], strength: float, steps: int, guidance: float
) -> list[Image.Image]:
    """A picture for each case; the same for the same case at the same place."""
    generated: list[Image.Image] = []
    for row in _in_rows(cases):
        texts, pictures = [case.prompt for case in row], [case.picture for case in row]
        seed = len(generated)
        generated += generator.paint(texts, pictures, strength=strength, steps=steps, guidance=guidance, seed=seed)
    return generated


def _in_rows(items: list[T]) -> list[list[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def share(right: list[bool]) -> float:
    """How many are right, in per cent."""
    return round(100 * sum(right) / len(right), 1)


def main(
    checkpoint: Path = CHECKPOINT,
    cases: int = 100,
    steps: int = 20,
    guidance: float = GUIDANCE,
    threads: int = 2,
    grid: Path | None = None,
) -> None:
    """Paint held-out cases with the model at CHECKPOINT and print how many are right, in per cent."""
    torch.set_num_threads(threads)
    generator = load_image_generator(checkpoint)
    print(json.dumps(asdict(score(generator, held_out_cases(cases), steps, guidance, grid))))


if __name__ == "__main__":
    typer.run(main)
