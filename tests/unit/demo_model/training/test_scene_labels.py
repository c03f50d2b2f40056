from itertools import islice

import torch

from deploy.demo_model.training.scene_labels import CLASSES, NUM_LOGITS, accuracies, classification_loss, labels
from deploy.demo_model.world.random_scenes import training_scenes
from deploy.demo_model.world.scene import Scene, Thing

PAIR = Scene("striped", "white", (Thing("fish", "red", "", "left"), Thing("sun", "blue", "small", "right")))
LANDSCAPE = Scene("sea", "", (Thing("boat", "red", "large", "top"),))


def test_the_labels_name_what_is_in_the_scene() -> None:
    named = [[choices[index] for choices, index in zip(CLASSES, row, strict=True)] for row in labels([PAIR, LANDSCAPE])]

    assert named == [
        ["fish", "red", "", "left", "sun", "blue", "striped", "white"],
        ["boat", "red", "large", "top", "", "", "sea", ""],
    ]


def test_right_logits_have_no_loss_and_one_wrong_label_is_counted() -> None:
    right = labels(list(islice(training_scenes(0), 4)))
    logits = _sure_of(right)

    assert classification_loss(logits, right) < 1e-3
    assert accuracies(logits, right) == [1.0] * len(CLASSES)

    wrong = right.clone()
    wrong[0, 1] = (wrong[0, 1] + 1) % len(CLASSES[1])
    assert classification_loss(logits, wrong) > 1
    assert accuracies(logits, wrong) == [1.0, 0.75, *[1.0] * (len(CLASSES) - 2)]


def _sure_of(right: torch.Tensor) -> torch.Tensor:
    logits, start = torch.zeros(len(right), NUM_LOGITS), 0
    for question, choices in enumerate(CLASSES):
        logits[torch.arange(len(right)), start + right[:, question]] = 20.0
        start += len(choices)
    return logits
