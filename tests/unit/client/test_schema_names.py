"""Names of fields and values: unknown ones are answered with the nearest known one."""

import json
from typing import Any

import pytest

from lorikeet.schema import unknown_field_warnings
from lorikeet.schema.unknown_fields import MAX_LISTED
from tests.unit.client.schema_requests import error_of, parse


def test_unknown_fields_are_kept_and_listed() -> None:
    request = parse(sync_mode=True, loras=[{"path": "a", "adapter_name": "b"}], image_size={"depth": 3})
    names = [warning.partition(":")[0] for warning in unknown_field_warnings(request)]
    assert sorted(names) == ["image_size.depth", "loras[0].adapter_name", "sync_mode"]
    assert json.loads(request.to_json())["loras"] == [{"path": "a", "adapter_name": "b"}]


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        ({"sync_mode": True}, ["sync_mode: unknown field, ignored"]),
        (
            {"guidence_scale": 7},
            ["guidence_scale: unknown field, ignored; did you mean guidance_scale?"],
        ),
        ({"GuidanceScale": 7}, ["GuidanceScale: unknown field, ignored; did you mean guidance_scale?"]),
        ({"strength": 0.5}, ["strength: unknown field, ignored; did you mean noise_strength?"]),
        ({"lora": []}, ["lora: unknown field, ignored; did you mean loras?"]),
        ({"width": 512}, ["width: unknown field, ignored"]),
        ({"": 1}, [": unknown field, ignored"]),
        ({"x" * 999: 1}, ["x" * 97 + "...: unknown field, ignored"]),
        (
            {"loras": [{"path": "a", "scales": 1}]},
            ["loras[0].scales: unknown field, ignored; did you mean scale?"],
        ),
    ],
)
def test_an_unknown_field_is_a_warning_with_the_nearest_name(fields: dict[str, Any], warnings: list[str]) -> None:
    assert unknown_field_warnings(parse(**fields)) == warnings


def test_of_many_unknown_fields_some_are_listed_and_the_rest_is_counted() -> None:
    found = unknown_field_warnings(parse(**{f"xyz{number}": 1 for number in range(1000)}))
    assert len(found) == MAX_LISTED + 1
    assert found[-1] == f"{1000 - MAX_LISTED} more unknown fields, ignored"


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("scheduler", "Euler a", "Euler A"),
        ("scheduler", "euler", "Euler"),
        ("scheduler", "euler_ancestral", "Euler A"),
        ("scheduler", "EulerAncestralDiscreteScheduler", "Euler A"),
        ("scheduler", "EulerDiscreteScheduler", "Euler"),
        ("scheduler", "dpm++ 2m karras", "DPM++ 2M Karras"),
        ("scheduler", "DPM++ 2M  Karras ", "DPM++ 2M Karras"),
        ("scheduler", "dpmpp_2m", "DPM++ 2M"),
        ("scheduler", "dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras"),
        ("scheduler", "DPMSolverMultistepScheduler", "DPM++ 2M"),
        ("scheduler", "lcm trailing timesteps", "LCM (trailing timesteps)"),
        ("scheduler", "ddim", "DDIM"),
        ("scheduler", "TCDScheduler", "TCD"),
        ("image_format", "jpg", "jpeg"),
        ("image_format", "PNG", "png"),
        ("prediction_type", "v-prediction", "v_prediction"),
        ("prediction_type", "v_pred", "v_prediction"),
        ("prediction_type", "eps", "epsilon"),
        ("image_size", "Square HD", "square_hd"),
        ("image_size", "portrait_16:9", "portrait_16_9"),
        ("image_size", "landscape", "landscape_4_3"),
    ],
)
def test_an_error_proposes_the_nearest_name(field: str, value: str, near: str) -> None:
    message = error_of(**{field: value})
    assert message.startswith(f"{field}: Input should be '")
    assert message.endswith(f" (got {value!r}): did you mean {near!r}?")


def test_the_method_of_a_schedule_is_proposed_too() -> None:
    assert error_of(timesteps={"method": "Array"}).endswith("(got 'Array'): did you mean 'array'?")


@pytest.mark.parametrize("value", ["xyz", "", "?", "e" * 61, 5, True, ["Euler a"], {"a": 1}])
def test_a_value_that_resembles_no_name_has_no_proposal(value: object) -> None:
    message = error_of(scheduler=value)
    assert message.startswith("scheduler: Input should be") and "did you mean" not in message
