"""Random requests over the whole schema: valid ones are answered, and invalid ones are refused by their field."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from deploy.local_server import LocalServer
from lorikeet import Client, InvalidRequest
from lorikeet.schema import SchedulerName
from tests.server.parity import picture
from tests.tiny.face_pack import face_picture

AT_ONCE = 8
EXAMPLES = [4, pytest.param(63, marks=pytest.mark.verify)]  # of 8 requests each
WORDS = ("a red fish", "under the sun", "(a boat:1.3)", "[sky]", "BREAK", "<s0>", "(house)")
Fields = dict[str, Any]


def pictures() -> st.SearchStrategy[Image.Image]:
    sides = st.integers(64, 128)
    return st.builds(
        lambda number, width, height: picture(number).resize((width, height)), st.integers(0, 5), sides, sides
    )


def fractions(most: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, most, width=32)


@st.composite
def controlnets(draw: st.DrawFn, kind: str) -> Fields:
    image = draw(pictures())
    start = draw(st.sampled_from([0.0, 0.25, 0.5]))
    return {
        "path": draw(
            st.sampled_from([f"controlnets/{kind}", f"controlnets/{kind}_b", f"controlnets/{kind}_file.safetensors"])
        ),
        "image_url": image,
        "mask_url": draw(st.none() | st.integers(0, 5).map(lambda number: picture(number).resize(image.size))),
        "conditioning_scale": draw(fractions(2.0)),
        "start_percentage": start,
        "end_percentage": draw(st.floats(start + 0.125, 1, width=32)),
    }


@st.composite
def ip_adapters(draw: st.DrawFn, kind: str) -> Fields:
    scales = {"up": {"block_1": draw(fractions())}, "mid": draw(fractions())}
    return {
        "path": f"ip_adapters/{kind}",
        "weight_name": draw(st.sampled_from(["base.safetensors", "base.bin", "plus.safetensors", "full.safetensors"])),
        "ip_adapter_image_url": draw(pictures() | st.lists(pictures(), min_size=1, max_size=2)),
        "ip_adapter_mask_url": draw(st.none() | pictures()),
        "scale": draw(st.floats(0.125, 2, width=32)),
        "scale_json": draw(st.none() | st.just(scales)),
        "unconditional_noising_factor": draw(fractions()),
    }


def face_pictures() -> st.SearchStrategy[Image.Image]:
    spot = st.tuples(st.sampled_from(["red", "green"]), st.integers(24, 72), st.integers(24, 40))
    return st.builds(lambda one, number: face_picture(one, seed=number), spot, st.integers(0, 5))


@st.composite
def face_adapters(draw: st.DrawFn, kind: str) -> Fields:
    names = ["faceid.safetensors", "faceid.bin", "faceid_plus.safetensors", "portrait.safetensors"]
    return draw(ip_adapters(kind)) | {
        "weight_name": draw(st.sampled_from([*names, "instant_id.safetensors"])),
        "ip_adapter_image_url": draw(face_pictures() | st.lists(face_pictures(), min_size=1, max_size=2)),
        "insight_face_model_path": "face_pack",
        "image_projection_shortcut": draw(st.booleans()),
    }


@st.composite
def requests(draw: st.DrawFn) -> Fields:
    kind = draw(st.sampled_from(["sd15", "sd2", "sdxl"]))
    image = draw(st.none() | pictures())
    weighting = draw(st.booleans())
    words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40 if weighting else 6).map(" ".join)
    loras = st.fixed_dictionaries(
        {
            "path": st.sampled_from([f"loras/{kind}/peft.safetensors", f"loras/{kind}/kohya.safetensors"]),
            "scale": st.floats(-1, 1, width=32),
        }
    )
    asked: Fields = {
        "model_name": kind,
        "prompt": draw(words),
        "negative_prompt": draw(st.just("") | words),
        "prompt_weighting": weighting,
        "image_url": image,
        "image_size": draw(st.fixed_dictionaries({"width": st.integers(64, 128), "height": st.integers(64, 128)})),
        "noise_strength": draw(fractions()),
        "loras": draw(st.lists(loras, max_size=2)),
        "embeddings": draw(st.lists(st.just({"path": f"embeddings/{kind}/two.safetensors"}), max_size=1)),
        "controlnets": draw(st.lists(controlnets(kind), max_size=2)),
        "controlnet_guess_mode": draw(st.booleans()),
        "ip_adapter": draw(st.lists(ip_adapters(kind) | face_adapters(kind), max_size=2)),
        "seed": draw(st.none() | st.integers(0, 2**64 - 1)),
        "num_inference_steps": draw(st.integers(1, 6)),
        "guidance_scale": draw(fractions(12.0)),
        "clip_skip": draw(st.integers(0, 1)),
        "scheduler": draw(st.none() | st.sampled_from([name.value for name in SchedulerName])),
        "eta": draw(fractions()),
        "image_format": draw(st.sampled_from(["png", "jpeg"])),
        "num_images": draw(st.integers(1, 2)),
        "tile_width": draw(st.sampled_from([128, 4096])),
        "tile_stride_width": draw(st.sampled_from([64, 512])),
        "debug_latents": draw(st.booleans()),
        "debug_per_pass_latents": draw(st.booleans()),
    }
    for controlnet in asked["controlnets"] if asked["ip_adapter"] else ():
        controlnet["ip_adapter_index"] = draw(st.none() | st.integers(0, len(asked["ip_adapter"]) - 1))
    if kind == "sd15" and draw(st.booleans()):
        model = draw(st.sampled_from(["fc", "fbc"]))
        asked |= {"ic_light_model_url": f"ic_light/{model}.safetensors", "ic_light_image_url": draw(pictures())}
        if model == "fbc":
            asked["ic_light_model_background_image_url"] = draw(pictures())
    return {name: value for name, value in asked.items() if value is not None}


FACEID = {"path": "ip_adapters/sd15", "weight_name": "faceid.safetensors", "ip_adapter_image_url": face_picture()}
# A field, and values that no request may have there.
BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "model_name": ("", "no/such/model", 5),
    "prompt": (5, None, "x" * 10_001),
    "noise_strength": (1.5, -0.1, "much", float("nan")),
    "loras": ([{"path": ""}], [{"scale": 1}], {}, [5]),
    "embeddings": ([{"path": "no/such/embedding"}], 7),
    "controlnets": (
        *([{"path": "controlnets/sd15"}], [{"path": "no/such/net", "image_url": picture()}], "x"),
        [{"path": "controlnets/sd15", "image_url": picture(), "ip_adapter_index": 7}],
    ),
    "ip_adapter": (
        *([{"path": "no/such/adapter", "ip_adapter_image_url": picture()}], [{"path": "a/b"}], True),
        [FACEID | {"insight_face_model_path": "face_pack"}],  # its picture has no face
        *([FACEID], [FACEID | {"insight_face_model_path": "loras"}]),
    ),
    "seed": (-2, 2**64, "none"),
    "num_inference_steps": (0, 151, 1.5),
    "guidance_scale": (-1, 21),
    "clip_skip": (3, -1),
    "scheduler": ("Heun", 5),
    "eta": (1.5,),
    "image_format": ("gif",),
    "num_images": (0, 9),
    "tile_width": (64, 5000),
    "ic_light_image_url": ("no/such/picture.png",),
    "enable_safety_checker": (True, "perhaps"),
    "image_encoder_subfolder": ("models",),
}


@st.composite
def invalid(draw: st.DrawFn) -> tuple[str, Fields]:
    """The name of a field, and a request that is wrong in it alone."""
    fields = draw(requests())
    for name in ("ic_light_model_url", "ic_light_image_url", "ic_light_model_background_image_url"):
        fields.pop(name, None)
    name = draw(st.sampled_from(sorted(BAD_VALUES)))
    return name, fields | {name: draw(st.sampled_from(BAD_VALUES[name]))}


def repeat(examples: int) -> Callable[[Any], Any]:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)
    return lambda test: seed(0)(chosen(test))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_valid_requests_are_answered(client: Client, server: LocalServer, examples: int) -> None:
    @repeat(examples)
    @given(st.lists(requests(), min_size=AT_ONCE, max_size=AT_ONCE))
    def check(asked: list[Fields]) -> None:
        jobs = [client.submit(**fields) for fields in asked]
        for fields, job in zip(asked, jobs, strict=True):
            result = job.result()
            assert len(result.images) == fields["num_images"]
            assert (result.latents is not None) == fields["debug_latents"]

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_invalid_requests_are_refused_by_their_field(client: Client, tiny: Path, examples: int) -> None:
    def refused(name: str, fields: Fields) -> None:
        with pytest.raises(InvalidRequest) as error:
            client.image_to_image(**fields)
        assert name in str(error.value), json.dumps({name: repr(fields[name])})

    @repeat(examples)
    @given(st.lists(invalid(), min_size=AT_ONCE, max_size=AT_ONCE))
    def check(asked: list[tuple[str, Fields]]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: refused(*one), asked))
        assert client.image_to_image(model_name="sd15", prompt="a fish", num_inference_steps=1).images

    check()
