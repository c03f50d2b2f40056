"""Inputs of the API for the tests of clients, each with a seed of its own: equal submits are one request."""

from __future__ import annotations

import base64
import io
import itertools
from typing import Any

from PIL import Image

from lorikeet import Client

_SEEDS = itertools.count(1000)
STEPS = 4


def picture() -> bytes:
    """An init image, as PNG."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def quick(**fields: Any) -> dict[str, Any]:
    """An input that takes a fraction of a second."""
    return {
        "model_name": "sd15",
        "prompt": "a boat on a lake",
        "image_url": "data:image/png;base64," + base64.b64encode(picture()).decode(),
        "num_inference_steps": STEPS,
        "scheduler": "Euler",  # sd15's own, PNDM, makes a step more than the request says
        "seed": next(_SEEDS),
        **fields,
    }


def slow(**fields: Any) -> dict[str, Any]:
    """An input that takes longer than any test waits: tests cancel it."""
    size = {"width": 512, "height": 512}
    return {
        "model_name": "sd15",
        "prompt": "a boat on a lake",
        "image_size": size,
        "num_images": 1,
        "num_inference_steps": 150,
        "seed": next(_SEEDS),
        **fields,
    }


def digest_on_triton(grpc: str, body: dict[str, Any]) -> str:
    """The SHA-256 of the picture that Triton makes of an input without a gateway."""
    with Client(grpc) as client:
        image = client.submit(body).result().response.images[0]
    assert image.sha256 is not None
    return image.sha256
