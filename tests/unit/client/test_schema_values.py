"""Values of fields: null is an absent field, and numbers may be text."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from lorikeet.schema import ImageSize, ImageToImageInput, describe_errors
from tests.unit.client.schema_requests import BASE, error_of, parse

OPTIONAL = sorted(name for name, field in ImageToImageInput.model_fields.items() if not field.is_required())


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_is_an_absent_field(name: str) -> None:
    assert parse(**{name: None}) == parse()
    assert ImageToImageInput.model_validate_json(json.dumps({**BASE, name: None})) == parse()


@pytest.mark.parametrize(
    ("with_null", "without"),
    [
        ({"loras": [{"path": "a", "scale": None}]}, {"loras": [{"path": "a"}]}),
        ({"embeddings": [{"path": "a", "tokens": None}]}, {"embeddings": [{"path": "a"}]}),
        ({"timesteps": {"method": None, "array": None}}, {"timesteps": {}}),
        ({"sigmas": {"method": None, "array": [1, 0.5]}}, {"sigmas": {"array": [1, 0.5]}}),
        ({"image_size": {"width": 640, "height": None}}, {"image_size": {"width": 640}}),
        (
            {"controlnets": [{"path": "a", "image_url": "b", "conditioning_scale": None, "mask_url": None}]},
            {"controlnets": [{"path": "a", "image_url": "b"}]},
        ),
        (
            {"ip_adapter": [{"path": "a", "ip_adapter_image_url": "b", "scale": None, "scale_json": None}]},
            {"ip_adapter": [{"path": "a", "ip_adapter_image_url": "b"}]},
        ),
        (
            {"ip_adapter": [{"path": "a", "ip_adapter_image_url": None, "image_url": "b"}]},
            {"ip_adapter": [{"path": "a", "image_url": "b"}]},
        ),
        (
            {"controlnets": [{"path": "a", "image_url": None, "control_image_url": "b"}]},
            {"controlnets": [{"path": "a", "image_url": "b"}]},
        ),
    ],
)
def test_null_in_a_part_is_an_absent_field(with_null: dict[str, Any], without: dict[str, Any]) -> None:
    assert parse(**with_null) == parse(**without)
    as_json = (json.dumps({**BASE, **fields}) for fields in (with_null, without))
    assert len({ImageToImageInput.model_validate_json(text).to_json() for text in as_json}) == 1


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"prompt": None}, "prompt"),
        ({"model_name": None}, "model_name"),
        ({"loras": [None]}, "loras[0]"),
        ({"loras": [{"path": None}]}, "loras[0].path"),
        ({"timesteps": {"method": "array", "array": [None]}}, "timesteps.array[0]"),
        ({"embeddings": [{"path": "a", "tokens": [None]}]}, "embeddings[0].tokens[0]"),
    ],
)
def test_null_in_place_of_what_is_required_is_an_error(fields: dict[str, Any], location: str) -> None:
    assert error_of(**fields).startswith(f"{location}: Input should be")


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"num_inference_steps": "3"}, {"num_inference_steps": 3}),
        ({"num_inference_steps": " 3 "}, {"num_inference_steps": 3}),
        ({"num_inference_steps": "3.0"}, {"num_inference_steps": 3}),
        ({"num_inference_steps": 3.0}, {"num_inference_steps": 3}),
        ({"guidance_scale": "7.5"}, {"guidance_scale": 7.5}),
        ({"guidance_scale": "75e-1"}, {"guidance_scale": 7.5}),
        ({"guidance_scale": "7"}, {"guidance_scale": 7.0}),
        ({"seed": "42"}, {"seed": 42}),
        ({"seed": str(2**64 - 1)}, {"seed": 2**64 - 1}),
        ({"seed": 2**64 - 1}, {"seed": 2**64 - 1}),
        ({"seed": "18446744073709551615.0"}, {"seed": 2**64 - 1}),
        ({"seed": -1}, {"seed": None}),
        ({"seed": -1.0}, {"seed": None}),
        ({"seed": "-1"}, {"seed": None}),
        ({"prompt_weighting": "true"}, {"prompt_weighting": True}),
        ({"debug_latents": False}, {"debug_latents": False}),
    ],
)
def test_a_number_as_text_is_a_number(fields: dict[str, Any], numbers: dict[str, Any]) -> None:
    ((name, expected),) = numbers.items()
    for request in (parse(**fields), ImageToImageInput.model_validate_json(json.dumps({**BASE, **fields}))):
        found = getattr(request, name)
        assert found == expected and type(found) is type(expected)


def test_numbers_in_parts_may_be_text() -> None:
    request = parse(
        loras=[{"path": "a", "scale": "-0.5"}],
        sigmas={"method": "array", "array": ["14.6", 1]},
        image_size={"width": "640"},
    )
    assert (request.loras[0].scale, request.sigmas.array, request.image_size) == (-0.5, [14.6, 1], ImageSize(width=640))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", "three"), ("num_inference_steps", "3.5"), ("num_inference_steps", ""),
        ("num_inference_steps", "0x10"), ("num_inference_steps", "true"), ("num_inference_steps", 3.5),
        ("num_inference_steps", True), ("guidance_scale", "true"), ("guidance_scale", True),
        ("guidance_scale", "nan"), ("guidance_scale", "inf"), ("guidance_scale", "-Infinity"),
        ("guidance_scale", "1e400"), ("guidance_scale", "7,5"), ("guidance_scale", [7.5]), ("seed", "-2"),
        ("seed", "1e99"), ("seed", str(2**64)), ("seed", True), ("seed", "random"), ("seed", "9" * 5000),
        ("prompt_weighting", "perhaps"), ("prompt_weighting", 2),
    ],
)  # fmt: skip
def test_what_is_no_number_names_its_field(field: str, value: object) -> None:
    message = error_of(**{field: value})
    assert message.startswith(f"{field}: ") and len(message) < 300


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999", '"nan"', '"1e400"'])
@pytest.mark.parametrize("field", ["guidance_scale", "eta", "noise_strength"])
def test_a_number_that_is_not_finite_is_an_error(field: str, number: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ImageToImageInput.model_validate_json(f'{{"model_name": "m", "prompt": "p", "{field}": {number}}}')
    assert describe_errors(caught.value).startswith(f"{field}: Input should be")
