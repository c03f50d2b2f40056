"""Requests with few fields, and the errors of invalid ones."""

import pytest
from pydantic import ValidationError

from lorikeet.schema import ImageToImageInput, describe_errors

BASE = {"model_name": "m", "prompt": "p"}


def parse(**fields: object) -> ImageToImageInput:
    return ImageToImageInput.model_validate({**BASE, **fields})


def error_of(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        parse(**fields)
    return describe_errors(caught.value)
