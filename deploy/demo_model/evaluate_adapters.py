"""Judge the published adapters: `python -m deploy.demo_model.evaluate_adapters`. Prints one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import islice
from random import Random
from typing import Any, Literal, TypeAlias

import torch
import typer
from PIL import Image

from deploy.demo_model import measure
from deploy.demo_model.adapted_painting import paint, with_controlnet, with_ip_adapter
from deploy.demo_model.cases import SEED, held_out_cases
from deploy.demo_model.edges import edges
from deploy.demo_model.evaluate import BATCH, share
from deploy.demo_model.inversions import INVERSIONS, Inversion
from deploy.demo_model.painter import GUIDANCE, load_painter
from deploy.demo_model.paths import CHECKPOINT, EMBEDDINGS
from deploy.demo_model.scene import Scene, draw

FOLLOWS = 0.7  # of the outlines' overlap: more than two kinds of things have at one place, on average
Which = Literal["all", "embedding", "controlnet", "ip-adapter"]
SCALES = {"without": 0.0, "with": 1.0}
Figures: TypeAlias = dict[str, float]
Conditions: TypeAlias = Callable[[slice], dict[str, Any]]


class Judge:
    """Paints from noise with `steps` and `guidance`, a row at a time, and measures; all figures are in per cent."""

    def __init__(self, cases: int, steps: int, guidance: float) -> None:
        self._cases, self._steps, self._guidance = cases, steps, guidance

    def embedding(self, inversion: Inversion) -> Figures:
        """How often the prompt's new word paints what it stands for; the same word before it is loaded; its name."""
        random = Random(SEED)
        scenes = list(islice(inversion.scenes(random), self._cases))
        texts = [inversion.caption(scene, random, inversion.token) for scene in scenes]
        named = [text.replace(inversion.token, f"{inversion.colour} {inversion.kind}") for text in texts]
        pipeline = load_painter(CHECKPOINT).pipeline()
        figures = {
            "in_words": _shown(self._paint(pipeline, named), inversion),
            "without": _shown(self._paint(pipeline, texts), inversion),
        }
        pipeline.load_textual_inversion(EMBEDDINGS / f"{inversion.name}.safetensors")
        painted = self._paint(pipeline, texts)
        return figures | {
            "with": _shown(painted, inversion),
            "colour": share([measure.object_colour(picture) == inversion.colour for picture in painted]),
            "shape": share([measure.object_shape(picture) == inversion.kind for picture in painted]),
        }

    def controlnet(self) -> Figures:
        """How well outlines follow the control picture: on average, and how often well enough."""
        cases = held_out_cases(self._cases)
        texts, wanted = [case.prompt for case in cases], [draw(case.after) for case in cases]
        control = list(map(edges, wanted))
        pipeline = with_controlnet(load_painter(CHECKPOINT))
        figures: Figures = {}
        for name, scale in SCALES.items():
            painted = self._paint(pipeline, texts, partial(_controlled_by, control, scale))
            overlaps = [outline_overlap(*pair) for pair in zip(painted, wanted, strict=True)]
            figures[f"overlap_{name}"] = round(100 * sum(overlaps) / len(overlaps), 1)
            figures[f"follows_{name}"] = share([overlap >= FOLLOWS for overlap in overlaps])
        return figures

    def ip_adapter(self) -> Figures:
        """How often a picture without a prompt has what the image prompt shows."""
        scenes = [case.after for case in held_out_cases(self._cases)]
        shown = [draw(scene) for scene in scenes]
        pipeline = with_ip_adapter(load_painter(CHECKPOINT))
        figures: Figures = {}
        for name, scale in SCALES.items():
            pipeline.set_ip_adapter_scale(scale)
            # One at a time: in a pipeline's call an image prompt is for all texts.
            painted = self._paint(pipeline, [""] * len(shown), lambda row: {"ip_adapter_image": shown[row]}, batch=1)
            figures |= {f"{what}_{name}": value for what, value in _alike(painted, scenes, shown).items()}
        return figures

    def _paint(
        self,
        pipeline: Any,
        texts: list[str],
        conditions: Conditions = lambda _: {},
        batch: int = BATCH,
    ) -> list[Image.Image]:
        """A picture for each of `texts`; `conditions` gives the pipeline's options for a part of them."""
        painted: list[Image.Image] = []
        for start in range(0, len(texts), batch):
            row = slice(start, start + batch)
            options = {"steps": self._steps, "guidance": self._guidance, "seed": start, **conditions(row)}
            painted += paint(pipeline, texts[row], **options)
        return painted


def _controlled_by(pictures: list[Image.Image], scale: float, row: slice) -> dict[str, Any]:
    return {"image": pictures[row], "controlnet_conditioning_scale": scale}


def outline_overlap(picture: Image.Image, other: Image.Image) -> float:
    """Intersection over union of what is not background in two pictures, 0 to 1; 0 where that is nothing."""
    one, two = measure.object_mask(picture), measure.object_mask(other)
    return int((one & two).sum()) / max(1, int((one | two).sum()))


def _shown(pictures: list[Image.Image], inversion: Inversion) -> float:
    """How often the pictures have both the kind and the colour."""
    wanted = inversion.kind, inversion.colour
    return share([(measure.object_shape(picture), measure.object_colour(picture)) == wanted for picture in pictures])


def _alike(painted: list[Image.Image], scenes: list[Scene], shown: list[Image.Image]) -> Figures:
    things = [scene.things[0] for scene in scenes]
    return {
        "colour": share(
            [measure.object_colour(now) == thing.colour for now, thing in zip(painted, things, strict=True)]
        ),
        "shape": share([measure.object_shape(now) == thing.kind for now, thing in zip(painted, things, strict=True)]),
        "background": share([measure.same_background(*pair) for pair in zip(painted, shown, strict=True)]),
    }


def main(
    adapter: Which = "all",
    cases: int = 100,
    steps: int = 20,
    guidance: float = GUIDANCE,
    threads: int = 2,
) -> None:
    """Paint with and without each adapter and print how often what it asks for shows, in per cent."""
    torch.set_num_threads(threads)
    judge = Judge(cases, steps, guidance)
    if adapter in ("all", "embedding"):
        for inversion in INVERSIONS.values():
            _report(f"embedding {inversion.name}", judge.embedding(inversion))
    if adapter in ("all", "controlnet"):
        _report("controlnet", judge.controlnet())
    if adapter in ("all", "ip-adapter"):
        _report("ip-adapter", judge.ip_adapter())


def _report(adapter: str, figures: Figures) -> None:
    print(json.dumps({"adapter": adapter} | figures), flush=True)


if __name__ == "__main__":
    typer.run(main)
