"""Training of the image encoder: it classifies the scene from its picture."""

from __future__ import annotations

from itertools import islice

import torch
from transformers import CLIPVisionModelWithProjection

from deploy.demo_model.paths import IMAGE_ENCODER
from deploy.demo_model.pipeline.image_encoder import WIDTH, make_image_encoder, prepare
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.scene_labels import NUM_LOGITS, accuracies, classification_loss, labels
from deploy.demo_model.training.state import load_average, resume
from deploy.demo_model.training.trained_networks import load_run
from deploy.demo_model.world.random_scenes import training_scenes
from deploy.demo_model.world.scene import Scene, draw

RUN = "image-encoder"
SHOWN = 200


class SceneClassifier(torch.nn.Module):
    """An image encoder with a linear classifier on its `image_embeds`; the classifier is not published."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_image_encoder()
        self.encoder.set_attn_implementation("eager")
        self.heads = torch.nn.Linear(WIDTH, NUM_LOGITS)

    def forward(self, scenes: list[Scene]) -> torch.Tensor:
        """The logits [n, NUM_LOGITS] for the pictures of `scenes`."""
        pixels = prepare([draw(scene) for scene in scenes]).to(device())
        logits: torch.Tensor = self.heads(self.encoder(pixels).image_embeds)
        return logits


def train_image_encoder(minutes: float, peak_rate: float) -> None:
    """Train the run `image-encoder` up to `minutes` in all."""
    classifier = SceneClassifier().to(device())
    state = resume(RUN, classifier)
    scenes = training_scenes(1 + data_parallel.seed_after(state.steps))
    shown = list(islice(training_scenes(-1), SHOWN))

    def loss_of(count: int) -> torch.Tensor:
        seen = list(islice(scenes, count))
        return classification_loss(classifier(seen), labels(seen).to(device()))

    def preview() -> None:
        with torch.no_grad():
            right = accuracies(state.average(shown), labels(shown).to(device()))
        print(f"right {' '.join(f'{share:.2f}' for share in right)}", flush=True)

    train(state, TrainingSettings(minutes, batch=32, peak_rate=peak_rate, decay=0.995), loss_of, preview)


def trained_image_encoder() -> CLIPVisionModelWithProjection:
    """The image encoder in float32 on the CPU: the run's averaged weights, else the committed ones."""
    classifier = SceneClassifier()
    if not IMAGE_ENCODER.exists():
        load_run(RUN, classifier)
    elif not load_average(RUN, classifier):
        committed = CLIPVisionModelWithProjection.from_pretrained(IMAGE_ENCODER, dtype=torch.float32)
        classifier.encoder.load_state_dict(committed.state_dict())
    return classifier.encoder
