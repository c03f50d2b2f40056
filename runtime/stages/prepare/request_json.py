"""Reads the request's JSON. Its size, depth and number of values are limited before it is parsed."""

from __future__ import annotations

from pydantic import ValidationError

from lorikeet.protocol.tensors import REQUEST
from lorikeet.schema import ImageToImageInput, describe_errors
from runtime.files.json_size import json_size
from runtime.stage_errors import InvalidArgument

MAX_DEPTH = 32
MAX_VALUES = 100_000


def read_request(data: bytes, max_bytes: int) -> ImageToImageInput:
    """The validated input. Raises InvalidArgument, whose message names the limit or the field."""
    if len(data) > max_bytes:
        raise InvalidArgument(
            REQUEST,
            f"{len(data)} bytes, expected at most {max_bytes} (LORIKEET_MAX_REQUEST_BYTES): send files in FILES",
        )
    size = json_size(data, MAX_VALUES, MAX_DEPTH)
    if size.depth > MAX_DEPTH:
        raise InvalidArgument(REQUEST, f"nested deeper than {MAX_DEPTH} levels: use fewer nested lists and objects")
    if size.values > MAX_VALUES:
        raise InvalidArgument(REQUEST, f"more than {MAX_VALUES} names and values: shorten its lists and objects")
    try:
        return ImageToImageInput.model_validate_json(data)
    except ValidationError as error:
        raise InvalidArgument("", describe_errors(error)) from error
