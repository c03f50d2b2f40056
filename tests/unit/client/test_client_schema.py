"""The schema of requests and responses: defaults, ranges, and what errors say."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorikeet.schema import (
    ImageSizePreset,
    ImageToImageInput,
    ImageToImageOutput,
    JobRequest,
    JobStatus,
    SchedulerName,
    describe_errors,
    size_in_pixels,
)
from tests.unit.client.schema_requests import BASE, error_of, parse

# field: (default, least, greatest, one too small, one too large), as the API documents them
RANGES = [
    ("noise_strength", 0.5, 0, 1, -0.01, 1.01),
    ("num_inference_steps", 30, 1, 150, 0, 151),
    ("guidance_scale", 7.5, 0, 20, -0.1, 20.1),
    ("clip_skip", 0, 0, 2, -1, 3),
    ("num_images", 1, 1, 8, 0, 9),
    ("tile_width", 4096, 128, 4096, 127, 4097),
    ("tile_height", 4096, 128, 4096, 127, 4097),
    ("tile_stride_width", 2048, 64, 2048, 63, 2049),
    ("tile_stride_height", 2048, 64, 2048, 63, 2049),
    ("eta", 0, 0, 1, -0.1, 1.1),
    ("seed", None, 0, 2**64 - 1, -2, 2**64),
]
DEFAULTS: dict[str, object] = {
    "unet_name": None,
    "variant": None,
    "negative_prompt": "",
    "prompt_weighting": False,
    "image_url": None,
    "image_size": None,
    "loras": [],
    "embeddings": [],
    "controlnets": [],
    "controlnet_guess_mode": False,
    "ip_adapter": [],
    "image_encoder_path": None,
    "image_encoder_subfolder": None,
    "image_encoder_weight_name": "pytorch_model.bin",
    "ic_light_model_url": None,
    "ic_light_model_background_image_url": None,
    "ic_light_image_url": None,
    "scheduler": None,
    "timesteps": {"method": "default", "array": []},
    "sigmas": {"method": "default", "array": []},
    "prediction_type": None,
    "rescale_betas_snr_zero": False,
    "image_format": "png",
    "enable_safety_checker": False,
    "debug_latents": False,
    "debug_per_pass_latents": False,
}
SCHEDULERS = {
    "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "Euler", "Euler A",
    "Euler (trailing timesteps)", "LCM", "LCM (trailing timesteps)", "DDIM", "TCD",
}  # fmt: skip


def test_defaults_are_the_api_s() -> None:
    ranged = {name: default for name, default, *_ in RANGES}
    assert parse().model_dump() == {**BASE, **DEFAULTS, **ranged}
    assert {name.value for name in SchedulerName} == SCHEDULERS


@pytest.mark.parametrize(("name", "default", "least", "greatest", "below", "above"), RANGES)
def test_ranges(name: str, default: object, least: float, greatest: float, below: float, above: float) -> None:
    for value in (least, greatest):
        assert getattr(parse(**{name: value}), name) == value
    for value in (below, above):
        assert error_of(**{name: value}).startswith(f"{name}: Input should be")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"loras": [{"path": "a"}, {"path": "b", "scale": float("nan")}]},
            "loras[1].scale: Input should be a f",
        ),
        ({"guidance_scale": float("inf")}, "guidance_scale: Input should be a finite number (got inf)"),
        ({"num_images": True}, "num_images: Input should be a number, not a boolean (got True)"),
        ({"eta": False}, "eta: Input should be a number, not a boolean (got False)"),
        (
            {"image_size": {"width": 0}},
            "image_size.width: Input should be greater than or equal to 1 (got 0)",
        ),
        ({"image_size": "huge"}, "image_size: Input should be 'square_hd'"),
        ({"embeddings": [{"path": "a"}] * 33}, "embeddings: at most 32, not 33"),
        ({"loras": [{}]}, "loras[0].path: Field required"),
        (
            {"ip_adapter": [{"path": "x", "ip_adapter_image_url": ["u", 1]}]},
            "ip_adapter[0].ip_adapter_image_url[1]:",
        ),
        (
            {"ip_adapter": [{"path": "x", "ip_adapter_image_url": []}]},
            "ip_adapter[0].ip_adapter_image_url: List",
        ),
        (
            {"ip_adapter": [{"path": "x", "ip_adapter_image_url": "u", "scale_json": {"up": [float("nan")]}}]},
            "ip_adapter[0].scale_json: numbers must be finite",
        ),
        (
            {"ip_adapter": [{"path": "x", "ip_adapter_image_url": "u", "scale": 1e38}]},
            "ip_adapter[0].scale: Input should be less than or equal to 1000 (got 1e+38)",
        ),
        (
            {"ip_adapter": [{"path": "x", "ip_adapter_image_url": "u", "scale_json": {"up": {"block_1": [1, -1001]}}}]},
            "ip_adapter[0].scale_json: a scale is -1001: expected one from -1000 to 1000",
        ),
        (
            {"controlnets": [{"path": "x", "image_url": "u", "start_percentage": 0.5, "end_percentage": 0.5}]},
            "controlnets[0]: start_percentage must be less than end_percentage",
        ),
        (
            {"controlnets": [{"path": "x", "image_url": "u", "start_percentage": 1}]},
            "controlnets[0]: start_perc",
        ),
        ({"timesteps": {"method": "array"}}, "timesteps: method 'array' needs a nonempty array"),
        (
            {"timesteps": {"method": "array", "array": [9]}, "sigmas": {"method": "array", "array": [9]}},
            "sigmas: cannot be set together with timesteps",
        ),
        ({"scheduler": "DDPM"}, "scheduler: Input should be 'DPM++ 2M'"),
        ({"prompt": "x" * 10_001}, "prompt: String should have at most 10000 characters"),
        ({"prompt": None}, "prompt: Input should be a valid string"),
        ({"model_name": ""}, "model_name: String should have at least 1 character"),
        ({"extra": float("nan")}, "extra: numbers must be finite"),
        ({"": float("nan")}, "(a field without a name): numbers must be finite"),
        ({"x" * 999: float("nan")}, "x" * 197 + "...: numbers must be finite"),
        ({"extra": "\ud800"}, "extra: text must be valid Unicode"),
        ({"extra": [{"a": "b\udfff"}]}, "extra: text must be valid Unicode"),
        ({"extra": {"\ud800": 1}}, "extra: text must be valid Unicode"),
        (
            {"num_images": 0, "eta": 2},
            "num_images: Input should be greater than or equal to 1 (got 0); eta: Input",
        ),
    ],
)
def test_errors_name_the_field(fields: dict[str, Any], message: str) -> None:
    assert error_of(**fields).startswith(message)


def test_errors_stay_short() -> None:
    assert "xxx" not in error_of(seed="x" * 61)
    assert error_of(embeddings=[{"path": "a", "tokens": [""] * 20}]).endswith("and 12 more")
    assert error_of(loras=[{}] * 20) == "loras[0].path: Field required"
    assert len(error_of(seed=10**5000)) < 200


def test_a_schedule_is_read_only_when_asked_for() -> None:
    request = parse(timesteps={"method": "array", "array": [999, 1]}, sigmas={"array": [1.0]})
    assert (request.timesteps.is_custom, request.sigmas.is_custom) == (True, False)


def test_lora_scale_is_any_finite_number() -> None:
    assert parse(loras=[{"path": "a", "scale": -1e30}]).loras[0].scale == -1e30


def test_presets_in_pixels() -> None:
    assert size_in_pixels(ImageSizePreset.PORTRAIT_16_9) == (576, 1024)
    size = parse(image_size={"width": 640}).image_size
    assert size is not None and size_in_pixels(size) == (640, 512)


def test_output_omits_what_was_not_asked_for() -> None:
    output = ImageToImageOutput(images=[], seed=1, has_nsfw_concepts=[])
    assert "debug_latents" not in json.loads(output.to_json())
    assert "null" not in output.to_json()


def test_every_field_is_described() -> None:
    for message in (ImageToImageInput, ImageToImageOutput, JobRequest, JobStatus):
        schema = message.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            for name, field in part.get("properties", {}).items():
                assert field.get("description"), name


REFS = st.text(min_size=1, max_size=20)
REQUESTS = st.fixed_dictionaries(
    {"model_name": REFS, "prompt": st.text(max_size=50)},
    optional={
        "seed": st.integers(0, 2**64 - 1),
        "guidance_scale": st.floats(0, 20),
        "scheduler": st.sampled_from(sorted(SCHEDULERS)),
        "image_size": st.sampled_from(["square", "landscape_4_3"]) | st.just({"width": 64, "height": 72}),
        "loras": st.lists(
            st.fixed_dictionaries({"path": REFS}, optional={"scale": st.floats(allow_nan=False, allow_infinity=False)})
        ),
        "ip_adapter": st.lists(
            st.fixed_dictionaries(
                {"path": REFS, "ip_adapter_image_url": REFS | st.lists(REFS, min_size=1)},
                optional={"scale_json": st.dictionaries(st.text(), st.lists(st.floats(-1, 1)))},
            ),
            max_size=2,
        ),
        "sigmas": st.lists(st.floats(0, 100), min_size=1, max_size=9).map(
            lambda array: {"method": "array", "array": array}
        ),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text() | st.sampled_from(["path", "array"]), child),
)


@settings(max_examples=50)
@given(REQUESTS)
def test_round_trip(fields: dict[str, Any]) -> None:
    text = ImageToImageInput.model_validate(fields).to_json()
    assert json.loads(text) == fields
    assert ImageToImageInput.model_validate_json(text).to_json() == text


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(ImageToImageInput.model_fields)) | st.text(), JSON))
@example({"\n": math.inf})
def test_random_json_raises_only_validation_errors(fields: dict[str, Any]) -> None:
    try:
        request = ImageToImageInput.model_validate_json(json.dumps({**BASE, **fields}))
    except ValidationError as error:
        assert "\n" not in describe_errors(error)
    else:
        json.loads(request.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("depth", [100, 5000])
def test_deep_json_is_refused(depth: int) -> None:
    value: object = 1
    for _ in range(depth):
        value = [value]
    assert error_of(extra=value) == "extra: nested deeper than 32 levels"
    with pytest.raises(ValidationError):
        ImageToImageInput.model_validate_json('{"extra":' + "[" * depth + "]" * depth + "}")


def test_schema_imports_only_pydantic() -> None:
    heavy = "{'tritonclient', 'PIL', 'typer', 'rich', 'torch', 'numpy', 'grpc'}"
    code = f"import sys, lorikeet.schema; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
