"""Replays a request from the receipt in its response or picture, and compares the two receipts."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from lorikeet.client.result import Result
from lorikeet.schema import MAX_REF, SENT, ImageToImageInput, ImageToImageOutput, Receipt, file_refs


class ReplayError(ValueError):
    """The file holds no receipt, or its request cannot be sent again. The message says what to do."""


@dataclass(frozen=True)
class Original:
    """What is replayed. `sha256`: of the image files, empty when only a picture was given. `picture`: that picture."""

    receipt: Receipt
    sha256: tuple[str | None, ...] = ()
    picture: bytes | None = None


def read_original(path: Path) -> Original:
    """Read a response (JSON), or a PNG or JPEG with a receipt in its metadata. Raises ReplayError, OSError."""
    data = path.read_bytes()
    try:
        if data.startswith((b"\x89PNG", b"\xff\xd8")):
            with Image.open(io.BytesIO(data)) as image:
                text = image.info.get("lorikeet") or image.info.get("comment")
            if not text:
                raise ReplayError(f"{path}: its metadata has no receipt; give the response's JSON instead")
            return Original(Receipt.model_validate_json(text), picture=data)
        response = ImageToImageOutput.model_validate_json(data)
    except (ValidationError, OSError) as error:
        raise ReplayError(f"{path}: not a response of this server, nor a picture of it") from error
    if not response.receipt.request:
        raise ReplayError(f"{path}: the response has no receipt")
    return Original(response.receipt, tuple(image.sha256 for image in response.images))


def request_of(original: Original, files: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the request, with the seed that was used. `files`: dotted field -> path or URL to use instead.

    Raises ReplayError when a file was sent inside the request and `files` does not name it.
    """
    request = ImageToImageInput.model_validate(original.receipt.request | {"seed": original.receipt.seed})
    missing = [
        field for field, value in file_refs(request) if field not in files and (len(value) >= MAX_REF or value == SENT)
    ]
    if missing:
        raise ReplayError(f"the receipt lacks files: give each as --file FIELD=PATH: {', '.join(missing)}")
    fields: dict[str, Any] = json.loads(request.to_json())
    sent = {field for field, value in file_refs(request) if value == SENT}
    for field, value in files.items():
        # Text for a checkpoint names one on the server; a Path is sent, as it was.
        _set(fields, field, Path(value) if field in sent and Path(value).is_file() else value)
    return fields


def differences(old: Receipt, new: Receipt) -> list[str]:
    """One line for each value of the receipts that differs, except for how the request names its files."""
    ignored = {"request": True}
    before = dict(_leaves(old.model_dump(exclude=ignored)))
    after = dict(_leaves(new.model_dump(exclude=ignored)))
    return [
        f"{name}: {before.get(name, 'absent')}, now {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def same_images(original: Original, result: Result) -> bool:
    """Whether the files are equal, bit by bit; where only a picture was given, whether one has its pixels."""
    if original.picture is not None:
        pixels = _pixels(original.picture)
        return any(np.array_equal(pixels, _pixels(file)) for file in result.files)
    return tuple(hashlib.sha256(file).hexdigest() for file in result.files) == original.sha256


def _pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every value that is no object or list."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{prefix}[{index}]")
    else:
        yield prefix, value


def _set(fields: dict[str, Any], location: str, value: str | Path) -> None:
    """Set the field at a dotted location such as `loras[0].path`. Raises ReplayError when there is none."""
    keys: list[str | int] = []
    for part in location.split("."):
        name, *indexes = part.replace("]", "").split("[")
        keys += [name, *(int(index) for index in indexes if index.isdigit())]
    node: Any = fields
    try:
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
    except (KeyError, IndexError, TypeError) as error:
        raise ReplayError(f"{location}: the request has no such field") from error
