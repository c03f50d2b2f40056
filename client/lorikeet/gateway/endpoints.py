"""The applications of fal that the gateway serves, and the request of Triton that their input means."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorikeet.gateway.api_error import FieldErrors, field_error
from lorikeet.gateway.locations import split_location
from lorikeet.protocol.encodable import is_encodable
from lorikeet.protocol.shorten import shorten
from lorikeet.schema import ImageSizePreset, ImageToImageInput, file_refs

_MAX_ECHO = 200  # characters of an invalid value that an error repeats
_TENSOR = "tensor:"


@dataclass(frozen=True)
class Endpoint:
    """An application. `id`: its name in URLs. `without`: fields that its input lacks. `defaults`: of its own."""

    id: str
    title: str
    without: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def application(self) -> str:
        """Owner and alias, with which the URLs of requests begin."""
        return "/".join(self.id.split("/")[:2])

    def read(self, body: Mapping[str, Any]) -> ImageToImageInput:
        """The request of Triton. Raises FieldErrors."""
        given = {name: value for name, value in body.items() if name not in self.without}
        try:
            request = ImageToImageInput.model_validate({**self.defaults, **given})
        except ValidationError as error:
            raise FieldErrors([_detail(item) for item in error.errors(include_url=False)]) from error
        for location, value in file_refs(request):
            if value.startswith(_TENSOR):
                raise field_error(split_location(location), "expected a URL or a data URI")
        return request

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        """The JSON schema of the input, for OpenAPI."""
        schema = copy.deepcopy(ImageToImageInput.model_json_schema(ref_template=ref_template))
        for name in self.without:
            del schema["properties"][name]
        for name, value in self.defaults.items():
            schema["properties"][name]["default"] = value
        return schema | {"title": self.title}


IMAGE_TO_IMAGE = Endpoint("fal-ai/lora/image-to-image", "ImageToImageInput")
TEXT_TO_IMAGE = Endpoint(
    "fal-ai/lora",
    "TextToImageInput",
    without=frozenset({"image_url", "noise_strength"}),
    defaults={"image_size": ImageSizePreset.SQUARE_HD.value},
)
ENDPOINTS = {endpoint.id: endpoint for endpoint in (IMAGE_TO_IMAGE, TEXT_TO_IMAGE)}
APPLICATIONS = frozenset(endpoint.application for endpoint in ENDPOINTS.values())


def _detail(item: ErrorDetails) -> dict[str, Any]:
    location = [part for part in item["loc"] if not str(part).startswith("<")]  # "<tag>" is a branch of a union
    detail: dict[str, Any] = {
        "loc": ["body", *location],
        "msg": item["msg"].removeprefix("Value error, "),
        "type": item["type"],
    }
    value = item["input"]
    is_short_text = isinstance(value, str) and len(value) <= _MAX_ECHO and is_encodable(value)
    if is_short_text or isinstance(value, (bool, int, float)):
        detail["input"] = value
    context = {name: part for name, part in item.get("ctx", {}).items() if name != "error"}
    if context:
        detail["ctx"] = {
            name: part if isinstance(part, (int, float)) else shorten(str(part)) for name, part in context.items()
        }
    return detail
