"""Nothing of one request's weights is left in the next."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lorikeet import Client

PICTURE = Image.linear_gradient("L").resize((96, 64)).convert("RGB")


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_base_a_b_base_gives_the_same_bytes(client: Client, tiny: Path, kind: str) -> None:
    folder = tiny / "loras" / kind

    def png(*loras: str) -> bytes:
        result = client.image_to_image(
            model_name=str(tiny / kind),
            prompt="a red fish",
            image=PICTURE,
            loras=[{"path": str(folder / f"{name}.safetensors")} for name in loras],
            seed=3,
            num_inference_steps=4,
        )
        return result.images[0].tobytes()

    first, a, b, last = png(), png("peft"), png("kohya"), png()
    assert first == last
    assert len({first, a, b}) == 3
    assert png("peft") == a
    assert png("kohya", "peft") != a


def test_a_fresh_server_gives_the_bytes_that_a_used_one_gives(client: Client, tiny: Path) -> None:
    """The same file under another path is the same weights: what was bound before it must not matter."""
    request = {"model_name": str(tiny / "sd15"), "prompt": "a boat", "seed": 5, "num_inference_steps": 3}
    lora = tiny / "loras" / "sd15" / "peft.safetensors"
    sent, named = (client.image_to_image(request, image=PICTURE, loras=[{"path": path}]) for path in (lora, str(lora)))
    assert sent.images[0].tobytes() == named.images[0].tobytes()


def test_scale_zero_is_no_lora(client: Client, tiny: Path) -> None:
    request = {"model_name": str(tiny / "sd15"), "prompt": "a boat", "seed": 5, "num_inference_steps": 3}
    lora = {"path": str(tiny / "loras" / "sd15" / "peft.safetensors"), "scale": 0}
    without, zero = client.image_to_image(request), client.image_to_image(request, loras=[lora])
    assert without.images[0].tobytes() == zero.images[0].tobytes()
