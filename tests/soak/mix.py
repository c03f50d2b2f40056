"""What the soak asks: a few dozen recipes again and again, and between them what is cancelled, too late or bad."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lorikeet.schema import SchedulerName

RECIPES = 40
Kind = Literal["good", "cancelled", "late", "bad"]
# What may become of each; UNAVAILABLE besides, while a stage is killed.
ENDS: dict[Kind, set[str]] = {
    "good": {"OK"},
    "cancelled": {"OK", "CANCELLED"},
    "late": {"OK", "DEADLINE_EXCEEDED"},
    "bad": {"INVALID_ARG"},
}


@dataclass(frozen=True)
class Item:
    """One request. `recipe`: the same number is the same request, and must give the same bytes.

    `seconds`: when it is cancelled, or when its time is over.
    """

    kind: Kind
    fields: dict[str, Any]
    recipe: int = -1
    seconds: float = 0.0


class Mix:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, tiny: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._tiny = tiny
        self._recipes = [Item("good", self._recipe(), number) for number in range(RECIPES)]
        self._long = {"model_name": "sd15", "prompt": "a boat", "num_inference_steps": 100}

    @property
    def plain(self) -> Item:
        """The first recipe."""
        return self._recipes[0]

    def draw(self, count: int) -> Iterator[Item]:
        """`count` requests: eight in ten are good, one is ended early, one is bad."""
        for _ in range(count):
            kinds: tuple[Kind, ...] = ("good", "cancelled", "late", "bad")
            (kind,) = self._random.choices(kinds, weights=(80, 6, 4, 10))
            if kind == "good":
                yield self._random.choice(self._recipes)
            elif kind == "bad":
                yield Item(kind, self._bad())
            else:
                yield Item(kind, self._long, seconds=self._random.uniform(0.01, 1.5))

    def stage(self, stages: tuple[str, ...]) -> str:
        """The next stage to be killed."""
        return self._random.choice(stages)

    def _recipe(self) -> dict[str, Any]:
        pick, kind = self._random.choice, self._random.choice(["sd15", "sdxl"])
        fields = {
            "model_name": pick([kind, f"single/{kind}.safetensors"]),
            "prompt": pick(["a red fish", "a boat under the sun, " * 8, ""]),
            "loras": self._loras(kind),
            "num_inference_steps": pick([1, 2, 4, 6]),
            "scheduler": pick([None, *SchedulerName]),
            "guidance_scale": pick([1.0, 6.0]),
            "num_images": pick([1, 1, 2]),
            "image_format": pick(["png", "jpeg"]),
            "debug_latents": pick([False, True]),
            "seed": self._random.randrange(2**32),
        }
        picture = {"image_url": _picture(), "noise_strength": pick([0.3, 0.8, 1.0])}
        size = {"image_size": pick([{"width": 64, "height": 64}, {"width": 128, "height": 72}])}
        return fields | pick([picture, size])

    def _loras(self, kind: str) -> list[dict[str, Any]]:
        """Some LoRAs, each named by its path or sent along."""
        folder = self._tiny / "loras" / kind
        found = []
        for name, scale in self._random.choice([[], [("peft", 0.5)], [("kohya", 1.0)], [("peft", 1), ("kohya", -0.4)]]):
            path = folder / f"{name}.safetensors"
            found.append({"path": self._random.choice([path, str(path)]), "scale": scale})
        return found

    def _bad(self) -> dict[str, Any]:
        base = {"model_name": "sd15", "prompt": "a fish", "num_inference_steps": 1}
        wrong: list[dict[str, Any]] = [
            {"model_name": "/etc"},
            {"model_name": b"no checkpoint"},
            {"image_url": b"no picture"},
            {"image_url": _picture()[:200]},
            {"image_url": "https://localhost/x.png"},
            {"image_size": {"width": 9000, "height": 9000}},
            {"loras": [{"path": b"no LoRA"}]},
            {"loras": [{"path": self._tiny / "loras" / "sdxl" / "peft.safetensors"}]},
            {"scheduler": "DDIM", "timesteps": {"method": "array", "array": [500, 1]}},
        ]
        return base | self._random.choice(wrong)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
