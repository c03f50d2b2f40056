"""The safety checker, through a server that has one: flagged pictures are black, and the response says which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessor

from deploy.local_server import LocalServer
from lorikeet import Client
from lorikeet.protocol.errors import LorikeetError
from tests.server.parity import base, fields, submit
from tests.tiny.safety_checker import write_safety_checker
from tests.tiny.vision import SIDE

PICTURES = 4
THRESHOLD = 0.28


@pytest.fixture(scope="module")
def checker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("safety_checker")
    write_safety_checker(folder, THRESHOLD)
    return folder


@pytest.fixture(scope="module")
def checking(tiny: Path, checker_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("checking")
    settings = {"local_paths": str(tiny), "store": str(folder / "store"), "precision": "float32"}
    settings["safety_checker"] = str(checker_folder)
    with LocalServer(folder / "server.log", settings) as server, Client(server.grpc) as connected:
        yield connected


@torch.no_grad()
def flags(folder: Path, images: list[Any]) -> list[bool]:
    """What diffusers' checker finds in these pictures."""
    checker = StableDiffusionSafetyChecker.from_pretrained(folder)
    processor = CLIPImageProcessor(size=SIDE, crop_size=SIDE)
    pixels = processor(images, return_tensors="pt").pixel_values
    arrays = np.stack([np.array(image, np.float32) / 255 for image in images])
    found: list[bool] = checker(clip_input=pixels, images=arrays)[1]
    return found


def test_flagged_pictures_are_black(checking: Client, checker_folder: Path, tiny: Path) -> None:
    check(checking, checker_folder, tiny)


def check(client: Client, folder: Path, tiny: Path) -> None:
    """The server flags the pictures that diffusers flags with the checker in `folder`."""
    found: list[bool] = []
    for seed in range(3):
        case = fields(num_images=PICTURES, seed=seed)(base(tiny, "sd15"))
        plain = submit(client, case).result()
        assert plain.response.has_nsfw_concepts == [False] * PICTURES
        case.served["enable_safety_checker"] = True
        checked = submit(client, case).result()
        expected = flags(folder, plain.images)
        assert checked.response.has_nsfw_concepts == expected
        for image, other, is_flagged in zip(checked.images, plain.images, expected, strict=True):
            assert image.size == other.size
            assert (not np.array(image).any()) if is_flagged else np.array_equal(np.array(image), np.array(other))
        found += expected
    assert any(found) and not all(found), "one answer for all pictures proves nothing"


def test_a_server_without_a_checker_refuses_it(client: Client, tiny: Path) -> None:
    case = base(tiny, "sd15")
    case.served["enable_safety_checker"] = True
    with pytest.raises(LorikeetError, match="enable_safety_checker: this server has none"):
        submit(client, case).result()
