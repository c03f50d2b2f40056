import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorikeet.schema import (
    ImageSize,
    ImageSizePreset,
    ImageToImageInput,
    ImageToImageOutput,
    JobRequest,
    JobStatus,
    SchedulerName,
    describe_errors,
    file_refs,
    map_file_refs,
    size_in_pixels,
    unknown_field_warnings,
)
from lorikeet.schema.unknown_fields import MAX_LISTED

BASE = {"model_name": "m", "prompt": "p"}

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


def parse(**fields: object) -> ImageToImageInput:
    return ImageToImageInput.model_validate({**BASE, **fields})


def error_of(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        parse(**fields)
    return describe_errors(caught.value)


def test_defaults_are_the_api_s() -> None:
    ranged = {name: default for name, default, *_ in RANGES}
    assert parse().model_dump() == {**BASE, **DEFAULTS, **ranged}
    assert {name.value for name in SchedulerName} == SCHEDULERS


@pytest.mark.parametrize(("name", "default", "least", "greatest", "below", "above"), RANGES)
def test_ranges(name: str, default: object, least: float, greatest: float, below: float, above: float) -> None:
    strides = {"tile_stride_width": 64, "tile_stride_height": 64}
    for value in (least, greatest):
        assert getattr(parse(**{**strides, name: value}), name) == value
    for value in (below, above):
        assert error_of(**{**strides, name: value}).startswith(f"{name}: Input should be")


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
        ({"embeddings": [{"path": "a"}, {"path": "b"}]}, "embeddings: at most 1, not 2"),
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
        ({"tile_width": 512}, "tile_stride_width: must not exceed tile_width"),
        ({"scheduler": "DDPM"}, "scheduler: Input should be 'DPM++ 2M'"),
        ({"prompt": "x" * 10_001}, "prompt: String should have at most 10000 characters"),
        ({"prompt": None}, "prompt: Input should be a valid string"),
        ({"model_name": ""}, "model_name: String should have at least 1 character"),
        ({"extra": float("nan")}, "extra: numbers must be finite"),
        ({"": float("nan")}, "(a field without a name): numbers must be finite"),
        ({"x" * 999: float("nan")}, "x" * 197 + "...: numbers must be finite"),
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


def test_file_refs_are_all_found_and_mapped() -> None:
    controlnet = {"path": "c", "image_url": "ci", "mask_url": "cm", "config_url": "cc"}
    adapter = {
        "path": "i",
        "ip_adapter_image_url": ["i0", "i1"],
        "ip_adapter_mask_url": "im",
        "insight_face_model_path": "if",
    }
    request = parse(
        unet_name="u",
        image_url="img",
        loras=[{"path": "l0"}, {"path": "l1"}],
        embeddings=[{"path": "e"}],
        controlnets=[controlnet],
        ip_adapter=[adapter, {"path": "j", "ip_adapter_image_url": "one"}],
        image_encoder_path="ie",
        ic_light_model_url="il",
        ic_light_model_background_image_url="ib",
        ic_light_image_url="ii",
    )
    found = dict(file_refs(request))
    assert found == {
        "model_name": "m",
        "unet_name": "u",
        "image_url": "img",
        "image_encoder_path": "ie",
        "ic_light_model_url": "il",
        "ic_light_model_background_image_url": "ib",
        "ic_light_image_url": "ii",
        "loras[0].path": "l0",
        "loras[1].path": "l1",
        "embeddings[0].path": "e",
        "controlnets[0].path": "c",
        "controlnets[0].image_url": "ci",
        "controlnets[0].mask_url": "cm",
        "controlnets[0].config_url": "cc",
        "ip_adapter[0].path": "i",
        "ip_adapter[0].ip_adapter_image_url[0]": "i0",
        "ip_adapter[0].ip_adapter_image_url[1]": "i1",
        "ip_adapter[0].ip_adapter_mask_url": "im",
        "ip_adapter[0].insight_face_model_path": "if",
        "ip_adapter[1].path": "j",
        "ip_adapter[1].ip_adapter_image_url": "one",
    }
    mapped = map_file_refs(request, lambda location, value: f"{location}={value}")
    assert dict(file_refs(mapped)) == {location: f"{location}={value}" for location, value in found.items()}
    assert dict(file_refs(request)) == found, "the original is left alone"
    assert mapped.model_fields_set == request.model_fields_set


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
