"""What can be asked of a scene, so that an encoder learns to tell it from words or from a picture."""

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
# Of the main thing, of the other one, of the background. "" is what goes without saying, or is not there.
CLASSES = [_KINDS, _COLOURS, list(SIZES), list(PLACES), _KINDS, _COLOURS, _BACKGROUNDS, _COLOURS]
NUM_LOGITS = sum(map(len, CLASSES))


def labels(scenes: list[Scene]) -> torch.Tensor:
    """The place of each right answer in its list of `CLASSES` [n, questions]."""
    return torch.tensor([_answers(scene) for scene in scenes])


def _answers(scene: Scene) -> list[int]:
    first, second = scene.things[0], scene.things[1] if len(scene.things) > 1 else None
    said = [first.kind, first.colour, first.size, first.place, second.kind if second else ""]
    said += [second.colour if second else "", scene.texture, scene.background]
    return [choices.index(answer) for choices, answer in zip(CLASSES, said, strict=True)]


def classification_loss(guesses: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The sum over all questions of the cross entropy of `guesses` [n, NUM_LOGITS] to the labels `right`."""
    losses = [cross_entropy(guess, answer) for guess, answer in zip(_split(guesses.float()), right.T, strict=True)]
    return torch.stack(losses).sum()


def accuracies(guesses: torch.Tensor, right: torch.Tensor) -> list[float]:
    """For each question the share of right guesses."""
    pairs = zip(_split(guesses), right.T, strict=True)
    return [float((guess.argmax(1) == answer).float().mean()) for guess, answer in pairs]


def _split(guesses: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split_with_sizes(guesses, [*map(len, CLASSES)], dim=1)
