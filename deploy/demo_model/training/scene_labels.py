"""Classification labels of a scene, for training the text encoder and the image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from deploy.demo_model.world.backgrounds import LANDSCAPES, TEXTURES
from deploy.demo_model.world.colours import NAMED
from deploy.demo_model.world.scene import PLACES, SIZES, Scene
from deploy.demo_model.world.things import KINDS

_KINDS = [*sorted(KINDS), ""]
_COLOURS = [*NAMED, ""]
_BACKGROUNDS = [*TEXTURES, *sorted(LANDSCAPES)]
# Classes of the main thing, the second thing and the background. "" means the default or absence.
CLASSES = [_KINDS, _COLOURS, list(SIZES), list(PLACES), _KINDS, _COLOURS, _BACKGROUNDS, _COLOURS]
NUM_LOGITS = sum(map(len, CLASSES))


def labels(scenes: list[Scene]) -> torch.Tensor:
    """The index of each label in its list of `CLASSES`: int64 [n, len(CLASSES)]."""
    return torch.tensor([_labels(scene) for scene in scenes])


def _labels(scene: Scene) -> list[int]:
    first, second = scene.things[0], scene.things[1] if len(scene.things) > 1 else None
    said = [first.kind, first.colour, first.size, first.place, second.kind if second else ""]
    said += [second.colour if second else "", scene.texture, scene.background]
    return [classes.index(label) for classes, label in zip(CLASSES, said, strict=True)]


def classification_loss(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The cross entropy of `logits` [n, NUM_LOGITS] to the labels `right`, summed over the label lists."""
    losses = [cross_entropy(logit, label) for logit, label in zip(_split(logits.float()), right.T, strict=True)]
    return torch.stack(losses).sum()


def accuracies(logits: torch.Tensor, right: torch.Tensor) -> list[float]:
    """The share of right predictions, 0 to 1, for each list of `CLASSES`."""
    pairs = zip(_split(logits), right.T, strict=True)
    return [float((logit.argmax(1) == label).float().mean()) for logit, label in pairs]


def _split(logits: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split_with_sizes(logits, [*map(len, CLASSES)], dim=1)
