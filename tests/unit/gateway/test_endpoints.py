"""The inputs of the endpoints, and their errors in fal's shape."""

from __future__ import annotations

from typing import Any

import pytest

from lorikeet.gateway.api_error import FieldErrors
from lorikeet.gateway.endpoints import IMAGE_TO_IMAGE, TEXT_TO_IMAGE, Endpoint
from lorikeet.gateway.locations import leading_location, split_location

REQUIRED = {"model_name": "m", "prompt": "p"}


def errors(endpoint: Endpoint, body: dict[str, Any]) -> list[dict[str, Any]]:
    with pytest.raises(FieldErrors) as caught:
        endpoint.read(body)
    found: list[dict[str, Any]] = caught.value.detail
    return found


def test_text_to_image_ignores_an_init_image_and_has_a_size() -> None:
    request = TEXT_TO_IMAGE.read({**REQUIRED, "image_url": "https://example.com/a.png", "noise_strength": 9})
    assert request.image_url is None and request.image_size == "square_hd"
    assert IMAGE_TO_IMAGE.read(REQUIRED).image_size is None
    properties = TEXT_TO_IMAGE.json_schema("#/{model}")["properties"]
    assert "image_url" not in properties and properties["image_size"]["default"] == "square_hd"
    assert "image_url" in IMAGE_TO_IMAGE.json_schema("#/{model}")["properties"]


def test_a_field_error_has_the_place_the_message_and_the_kind() -> None:
    assert errors(IMAGE_TO_IMAGE, {"model_name": "m"}) == [
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
    ]
    (nested,) = errors(IMAGE_TO_IMAGE, {**REQUIRED, "loras": [{"path": "a"}, {"path": "b", "scale": "x"}]})
    assert nested["loc"] == ["body", "loras", 1, "scale"] and nested["input"] == "x"
    (size,) = errors(IMAGE_TO_IMAGE, {**REQUIRED, "image_size": {"width": 0}})
    assert size["loc"] == ["body", "image_size", "width"] and size["ctx"] == {"ge": 1}


def test_an_error_does_not_repeat_a_long_value() -> None:
    (error,) = errors(IMAGE_TO_IMAGE, {**REQUIRED, "seed": "data:" + "A" * 10_000})
    assert "input" not in error


@pytest.mark.parametrize("half", ["\ud800", "a\udfff"])
def test_an_error_can_be_sent_whatever_the_input_holds(half: str) -> None:
    adapter = {"path": "a", "ip_adapter_image_url": "b"}
    for fields in (
        {"prompt": half},
        {"scheduler": half},
        {half: 1},
        {"extra": half},
        {"extra": {half: 1}},
        {"loras": [{"path": "a", half: 1}]},
        {"ip_adapter": [{**adapter, "scale_json": {half: 1}}]},
    ):
        assert FieldErrors(errors(IMAGE_TO_IMAGE, {**REQUIRED, **fields})).response().status_code == 422


@pytest.mark.parametrize("field", ["image_url", "model_name"])
def test_a_tensor_of_triton_is_no_address(field: str) -> None:
    (error,) = errors(IMAGE_TO_IMAGE, {**REQUIRED, field: "tensor:0"})
    assert error["loc"] == ["body", field]


def test_locations() -> None:
    assert split_location("loras[1].scale") == ["loras", 1, "scale"]
    assert leading_location("loras[1].path: not found: x") == (["loras", 1, "path"], "not found: x")
    assert leading_location("out of memory: x") == ([], "out of memory: x")
    assert leading_location("error: x") == ([], "error: x")
