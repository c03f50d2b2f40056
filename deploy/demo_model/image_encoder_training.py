"""Training of the image encoder: to tell from a picture what is in the scene."""

from __future__ import annotations

from itertools import islice

import torch
from transformers import CLIPVisionModelWithProjection

from deploy.demo_model import workers
from deploy.demo_model.image_encoder import WIDTH, make_image_encoder, prepare
from deploy.demo_model.paths import IMAGE_ENCODER
from deploy.demo_model.questions import GUESSES, answering_loss, answers, share_right
from deploy.demo_model.sampling import training_scenes
from deploy.demo_model.scene import Scene, draw
from deploy.demo_model.trained import load_run
from deploy.demo_model.training_loop import Settings, device, train
from deploy.demo_model.training_state import load_average, resume

RUN = "image-encoder"
SHOWN = 200


class Observer(torch.nn.Module):
    """An image encoder with a linear map from its `image_embeds` to answers, which is not published."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_image_encoder()
        self.encoder.set_attn_implementation("eager")
        self.heads = torch.nn.Linear(WIDTH, GUESSES)

    def forward(self, scenes: list[Scene]) -> torch.Tensor:
        """The guesses [n, GUESSES] of what is in the pictures of `scenes`."""
        pixels = prepare([draw(scene) for scene in scenes]).to(device())
        guesses: torch.Tensor = self.heads(self.encoder(pixels).image_embeds)
        return guesses


def train_image_encoder(minutes: float, peak_rate: float) -> None:
    """Train the run `image-encoder` up to `minutes` in all."""
    observer = Observer().to(device())
    state = resume(RUN, observer)
    scenes = training_scenes(1 + workers.seed_of(state.steps))
    shown = list(islice(training_scenes(-1), SHOWN))

    def loss_of(count: int) -> torch.Tensor:
        seen = list(islice(scenes, count))
        return answering_loss(observer(seen), answers(seen).to(device()))

    def preview() -> None:
        with torch.no_grad():
            right = share_right(state.average(shown), answers(shown).to(device()))
        print(f"right {' '.join(f'{share:.2f}' for share in right)}", flush=True)

    train(state, Settings(minutes, batch=32, peak_rate=peak_rate, decay=0.995), loss_of, preview)


def trained_image_encoder() -> CLIPVisionModelWithProjection:
    """The image encoder in float32 on the CPU: from the training folder, else as committed."""
    observer = Observer()
    if not IMAGE_ENCODER.exists():
        load_run(RUN, observer)
    elif not load_average(RUN, observer):
        committed = CLIPVisionModelWithProjection.from_pretrained(IMAGE_ENCODER, dtype=torch.float32)
        observer.encoder.load_state_dict(committed.state_dict())
    return observer.encoder
