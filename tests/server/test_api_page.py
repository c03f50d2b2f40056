"""The example input of the API's page, sent as it stands there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import tritonclient.grpc
from PIL import Image

from deploy.local_server import LocalServer
from tests.unit.runtime.tiny_checkpoints import copy_folder

EXAMPLE = Path(__file__).with_name("api_page_example.json")
SIDE = 192  # of the tiny SDXL's pictures


def test_the_example_of_the_apis_page_answers(server: LocalServer, tiny: Path, local_files: Path) -> None:
    """Its checkpoint is the tiny SDXL in a folder of that name."""
    text = EXAMPLE.read_bytes()
    copy_folder(tiny / "sdxl", local_files / json.loads(text)["model_name"])
    sent = tritonclient.grpc.InferInput("REQUEST", [1], "BYTES")
    sent.set_data_from_numpy(np.array([text], np.object_))
    with tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as connection:
        found = connection.infer("lora_image_to_image", [sent])
    response = json.loads(found.as_numpy("RESPONSE")[0])
    (file,) = found.as_numpy("IMAGES")
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE))
    (described,) = response["images"]
    size = {"width": SIDE, "height": SIDE, "file_size": len(file)}
    assert described["content_type"] == "image/jpeg" and described.items() >= size.items()
    assert response["warnings"] == []
    assert 0 <= response["seed"] < 2**32
