"""Evaluate the published adapters: `python -m deploy.demo_model.evaluation.adapters`. Prints one JSON object a line."""

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

from deploy.demo_model.evaluation import picture_metrics
from deploy.demo_model.evaluation.checkpoint import BATCH, percent
from deploy.demo_model.evaluation.edit_cases import SEED, held_out_cases
from deploy.demo_model.paths import CHECKPOINT, EMBEDDINGS
from deploy.demo_model.pipeline.adapter_pipelines import generate, with_controlnet, with_ip_adapter
from deploy.demo_model.pipeline.image_generator import GUIDANCE, load_image_generator
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS, EmbeddingSpec
from deploy.demo_model.world.scene import Scene, draw

FOLLOWS = 0.7  # overlap of the outlines; two different kinds at one place mostly overlap less
Which = Literal["all", "embedding", "controlnet", "ip-adapter"]
SCALES = {"without": 0.0, "with": 1.0}
Figures: TypeAlias = dict[str, float]
Conditions: TypeAlias = Callable[[slice], dict[str, Any]]


class AdapterEvaluation:
    """Generates from noise with `steps` and `guidance` and measures. All figures are per cent."""

    def __init__(self, cases: int, steps: int, guidance: float) -> None:
        self._cases, self._steps, self._guidance = cases, steps, guidance

    def embedding(self, spec: EmbeddingSpec) -> Figures:
        """How often the new token generates its thing, with and without the embedding, and how often plain words do."""
        random = Random(SEED)
        scenes = list(islice(spec.scenes(random), self._cases))
        texts = [spec.caption(scene, random, spec.token) for scene in scenes]
        named = [text.replace(spec.token, f"{spec.colour} {spec.kind}") for text in texts]
        pipeline = load_image_generator(CHECKPOINT).pipeline()
        figures = {
            "in_words": _shown(self._generate(pipeline, named), spec),
            "without": _shown(self._generate(pipeline, texts), spec),
        }
        pipeline.load_textual_inversion(EMBEDDINGS / f"{spec.name}.safetensors")
        generated = self._generate(pipeline, texts)
        return figures | {
            "with": _shown(generated, spec),
            "colour": percent([picture_metrics.object_colour(picture) == spec.colour for picture in generated]),
            "shape": percent([picture_metrics.object_shape(picture) == spec.kind for picture in generated]),
        }

    def controlnet(self) -> Figures:
        """The mean outline overlap with the control picture, and the percent of cases at or above `FOLLOWS`."""
        cases = held_out_cases(self._cases)
        texts, wanted = [case.prompt for case in cases], [draw(case.after) for case in cases]
        control = list(map(edges, wanted))
        pipeline = with_controlnet(load_image_generator(CHECKPOINT))
        figures: Figures = {}
        for name, scale in SCALES.items():
            generated = self._generate(pipeline, texts, partial(_controlled_by, control, scale))
            overlaps = [outline_overlap(*pair) for pair in zip(generated, wanted, strict=True)]
            figures[f"overlap_{name}"] = round(100 * sum(overlaps) / len(overlaps), 1)
            figures[f"follows_{name}"] = percent([overlap >= FOLLOWS for overlap in overlaps])
        return figures

    def ip_adapter(self) -> Figures:
        """How often an image generated without a text prompt matches the image prompt."""
        scenes = [case.after for case in held_out_cases(self._cases)]
        shown = [draw(scene) for scene in scenes]
        pipeline = with_ip_adapter(load_image_generator(CHECKPOINT))
        figures: Figures = {}
        for name, scale in SCALES.items():
            pipeline.set_ip_adapter_scale(scale)
            # One row a call: a pipeline applies an image prompt to all texts of a call.
            generated = self._generate(
                pipeline, [""] * len(shown), lambda row: {"ip_adapter_image": shown[row]}, batch=1
            )
            figures |= {f"{what}_{name}": value for what, value in _alike(generated, scenes, shown).items()}
        return figures

    def _generate(
        self,
        pipeline: Any,
        texts: list[str],
        conditions: Conditions = lambda _: {},
        batch: int = BATCH,
    ) -> list[Image.Image]:
        """A picture for each of `texts`; `conditions` gives the pipeline options for a slice of them."""
        generated: list[Image.Image] = []
        for start in range(0, len(texts), batch):
            row = slice(start, start + batch)
            options = {"steps": self._steps, "guidance": self._guidance, "seed": start, **conditions(row)}
            generated += generate(pipeline, texts[row], **options)
        return generated


def _controlled_by(pictures: list[Image.Image], scale: float, row: slice) -> dict[str, Any]:
    return {"image": pictures[row], "controlnet_conditioning_scale": scale}


def outline_overlap(picture: Image.Image, other: Image.Image) -> float:
    """Intersection over union of the object masks of two pictures, 0 to 1; 0 if both are empty."""
    one, two = picture_metrics.object_mask(picture), picture_metrics.object_mask(other)
    return int((one & two).sum()) / max(1, int((one | two).sum()))


def _shown(pictures: list[Image.Image], spec: EmbeddingSpec) -> float:
    """Per cent of the pictures with the spec's kind and colour."""
    wanted = spec.kind, spec.colour
    return percent(
        [
            (picture_metrics.object_shape(picture), picture_metrics.object_colour(picture)) == wanted
            for picture in pictures
        ]
    )


def _alike(generated: list[Image.Image], scenes: list[Scene], shown: list[Image.Image]) -> Figures:
    things = [scene.things[0] for scene in scenes]
    return {
        "colour": percent(
            [picture_metrics.object_colour(now) == thing.colour for now, thing in zip(generated, things, strict=True)]
        ),
        "shape": percent(
            [picture_metrics.object_shape(now) == thing.kind for now, thing in zip(generated, things, strict=True)]
        ),
        "background": percent([picture_metrics.same_background(*pair) for pair in zip(generated, shown, strict=True)]),
    }


def main(
    adapter: Which = "all",
    cases: int = 100,
    steps: int = 20,
    guidance: float = GUIDANCE,
    threads: int = 2,
) -> None:
    """Generate with and without each adapter and print how often the result matches the request, in per cent."""
    torch.set_num_threads(threads)
    evaluation = AdapterEvaluation(cases, steps, guidance)
    if adapter in ("all", "embedding"):
        for spec in EMBEDDING_SPECS.values():
            _report(f"embedding {spec.name}", evaluation.embedding(spec))
    if adapter in ("all", "controlnet"):
        _report("controlnet", evaluation.controlnet())
    if adapter in ("all", "ip-adapter"):
        _report("ip-adapter", evaluation.ip_adapter())


def _report(adapter: str, figures: Figures) -> None:
    print(json.dumps({"adapter": adapter} | figures), flush=True)


if __name__ == "__main__":
    typer.run(main)
