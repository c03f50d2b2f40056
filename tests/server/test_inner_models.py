"""Clients can reach the stages' own models, past the ensemble: they get nothing there that it would not give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.local_server import LocalServer

STAGES = ("text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish")
NO_PLAN = "PLAN: not a plan of this server: send the request to lora_image_to_image"
Tensors = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def triton(server: LocalServer) -> grpc.InferenceServerClient:
    return grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))


def text(value: Any) -> npt.NDArray[np.object_]:
    """A JSON value as BYTES [1]."""
    return np.array([json.dumps(value).encode()], np.object_)


def ask(triton: grpc.InferenceServerClient, model: str, tensors: Tensors) -> grpc.InferResult:
    inputs = []
    for name, array in tensors.items():
        inputs.append(grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return triton.infer(model, inputs, client_timeout=60)


def refusal(triton: grpc.InferenceServerClient, model: str, tensors: Tensors) -> str:
    with pytest.raises(InferenceServerException) as caught:
        ask(triton, model, tensors)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    return str(caught.value.message())


def plan_of(triton: grpc.InferenceServerClient, tiny: Path) -> npt.NDArray[Any]:
    """What `prepare` makes of a good request."""
    request = {"model_name": str(tiny / "sd15"), "prompt": "a fish", "seed": 1, "num_inference_steps": 1}
    request["image_size"] = {"width": 64, "height": 64}
    found: npt.NDArray[Any] = ask(triton, "prepare", {"REQUEST": text(request)}).as_numpy("PLAN")
    return found


def anything(triton: grpc.InferenceServerClient, model: str) -> dict[str, npt.NDArray[Any]]:
    """Inputs of the right kinds for a stage, but for its plan."""
    found: dict[str, npt.NDArray[Any]] = {}
    for tensor in triton.get_model_metadata(model).inputs:
        shape = [max(1, length) for length in tensor.shape]
        dtype = {"FP32": np.float32, "UINT8": np.uint8, "BYTES": np.object_}[tensor.datatype]
        found[tensor.name] = np.full(shape, b"{}", np.object_) if dtype is np.object_ else np.zeros(shape, dtype)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_believes_no_plan_but_the_servers(triton: grpc.InferenceServerClient, tiny: Path, stage: str) -> None:
    """A forged one would name any file that the server can read, or a network that takes hours to build."""
    inputs = anything(triton, stage)
    plan = json.loads(plan_of(triton, tiny)[0])
    forged: tuple[Any, ...] = (
        {},
        [],
        plan | {"slot": 10**9},
        plan | {"width": 8},
        json.loads(json.dumps(plan).replace(str(tiny), "/etc")),
        plan,  # the same, but its bytes are not
    )
    for value in forged:
        assert refusal(triton, stage, inputs | {"PLAN": text(value)}) == NO_PLAN


def test_a_plan_is_good_for_one_call_of_each_stage(triton: grpc.InferenceServerClient, tiny: Path) -> None:
    inputs = {"PLAN": plan_of(triton, tiny), "REPORT": text({"timings": {}})}
    assert ask(triton, "text_encoder", inputs).as_numpy("PROMPT_EMBEDS").shape == (2, 77, 32)
    assert (
        refusal(triton, "text_encoder", inputs)
        == "PLAN: text_encoder has taken it before: send a new request to lora_image_to_image"
    )


def test_a_report_that_no_stage_wrote_is_refused(triton: grpc.InferenceServerClient, tiny: Path) -> None:
    inputs = {"PLAN": plan_of(triton, tiny), "REPORT": text({"timings": {}, "seed": 1})}
    assert (
        refusal(triton, "text_encoder", inputs)
        == "REPORT: not written by a stage: send the request to lora_image_to_image"
    )


@pytest.mark.parametrize(
    ("stage", "tensor", "shape"),
    [
        ("denoiser", "PROMPT_EMBEDS", (1000, 77, 32)),
        ("denoiser", "PROMPT_EMBEDS", (2, 10_000, 32)),
        ("denoiser", "LATENT_MEAN", (1, 4, 512, 8)),
        ("vae_decoder", "LATENTS", (64, 4, 8, 8)),
        ("vae_decoder", "LATENTS", (1, 4, 8, 512)),
    ],
)
def test_a_stage_works_on_no_more_than_was_planned(
    triton: grpc.InferenceServerClient, tiny: Path, stage: str, tensor: str, shape: tuple[int, ...]
) -> None:
    inputs = anything(triton, stage) | {"PLAN": plan_of(triton, tiny), tensor: np.zeros(shape, np.float32)}
    assert refusal(triton, stage, inputs).startswith(f"{tensor}: expected a shape of at most [")
