"""A receipt is read from a response or a picture, and its request is sent again."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorikeet.client.pack import pack
from lorikeet.client.result import Result
from lorikeet.replay import ReplayError, differences, read_original, request_of, same_images
from lorikeet.schema import SENT, ImageToImageOutput, Receipt
from runtime.files.image_codec import encode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
REQUEST = {"model_name": "sd15", "prompt": "a fish", "image_url": "in.png", "loras": [{"path": "x.safetensors"}]}


def _receipt(**more: Any) -> Receipt:
    return Receipt.model_validate({"request": REQUEST, "seed": 7, "versions": {"torch": "2"}} | more)


def _response(receipt: Receipt, *files: bytes) -> ImageToImageOutput:
    images = [{"url": "", "sha256": hashlib.sha256(file).hexdigest()} for file in files]
    return ImageToImageOutput.model_validate(
        {"images": images, "seed": 7, "has_nsfw_concepts": [False], "receipt": receipt.model_dump()}
    )


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_a_picture_holds_the_receipt(tmp_path: Path, image_format: Any) -> None:
    path = tmp_path / "picture"
    request = REQUEST | {"prompt": "a fish, 青"}
    path.write_bytes(encode_image(PIXELS, image_format, _receipt(request=request).to_json()))
    found = read_original(path)
    assert found.receipt.request["prompt"] == "a fish, 青"
    assert request_of(found, {}) == request | {"seed": 7}


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_metadata_changes_no_pixel(image_format: Any) -> None:
    plain, noted = (encode_image(PIXELS, image_format, text) for text in ("", _receipt().to_json()))
    first, second = (np.asarray(Image.open(io.BytesIO(data))) for data in (plain, noted))
    assert np.array_equal(first, second)


def test_a_long_receipt_is_left_out_of_a_jpeg() -> None:
    assert encode_image(PIXELS, "jpeg", "x" * 70_000) == encode_image(PIXELS, "jpeg")


def test_equal_files_are_the_same_images(tmp_path: Path) -> None:
    file, other = (encode_image(pixels, "png", _receipt().to_json()) for pixels in (PIXELS, PIXELS[::-1]))
    response = _response(_receipt(), file)
    (tmp_path / "response.json").write_text(response.to_json())
    (tmp_path / "picture.png").write_bytes(file)
    for name in ("response.json", "picture.png"):
        original = read_original(tmp_path / name)
        assert same_images(original, Result("id", response, [file]))
        assert not same_images(original, Result("id", response, [other]))


def test_the_differences_are_listed() -> None:
    old = _receipt(engine={"name": "torch", "threads": 2}, files={"a": "1"})
    new = _receipt(engine={"name": "torch", "threads": 4}, files={"a": "1", "b": "2"}, request={})
    assert differences(old, new) == ["engine.threads: 2, now 4", "files.b: absent, now 2"]
    assert differences(old, old) == []


def test_a_file_that_the_request_sent_must_be_given_again(tmp_path: Path) -> None:
    cut = {"image_url": SENT, "loras": [{"path": "x" * 256}]}
    (tmp_path / "r.json").write_text(_response(_receipt(request=REQUEST | cut)).to_json())
    original = read_original(tmp_path / "r.json")
    with pytest.raises(ReplayError, match=r"give each as --file FIELD=PATH: image_url, loras\[0\]\.path"):
        request_of(original, {})
    fields = request_of(original, {"image_url": "a.png", "loras[0].path": "b.safetensors"})
    assert (fields["image_url"], fields["loras"][0]["path"]) == ("a.png", "b.safetensors")
    with pytest.raises(ReplayError, match=r"^loras\[3\]\.path: the request has no such field"):
        request_of(original, {"image_url": "a", "loras[0].path": "b", "loras[3].path": "c"})


def test_a_checkpoint_that_the_request_sent_is_sent_again(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    (tmp_path / "r.json").write_text(_response(_receipt(request=REQUEST | {"model_name": SENT})).to_json())
    fields = request_of(read_original(tmp_path / "r.json"), {"model_name": str(file)})
    request, files = pack(fields, {})
    assert (request.model_name, files) == ("tensor:0", [b"weights"])


NO_RECEIPT = [
    b"",
    b"{}",
    b"[]",
    b"\x89PNG",
    b"\xff\xd8",
    encode_image(PIXELS, "png"),
    encode_image(PIXELS, "png", "{"),
    json.dumps({"images": [], "seed": 1, "has_nsfw_concepts": []}).encode(),
]


@pytest.mark.parametrize("content", NO_RECEIPT)
def test_a_file_without_a_receipt_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ReplayError):
        read_original(tmp_path / "x")
