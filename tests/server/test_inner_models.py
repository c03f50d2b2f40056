"""Clients can reach the stages' own models, past the ensemble: they get nothing there that it would not give them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.local_server import LocalServer
from runtime.jobs.job_table import LOST_SECONDS

STAGES = ("text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish")
NO_PLAN = "PLAN: not a plan of this server: send the request to lora_image_to_image"
NOT_WRITTEN = "for this job: send the request to lora_image_to_image"
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


def prepared(triton: grpc.InferenceServerClient, tiny: Path, **fields: Any) -> dict[str, npt.NDArray[Any]]:
    """What `prepare` answers to a good request of a client that calls it directly."""
    request = {"model_name": str(tiny / "sd15"), "prompt": "a fish", "seed": 1, "num_inference_steps": 1, **fields}
    request["image_size"] = {"width": 64, "height": 64}
    return answered(ask(triton, "prepare", {"REQUEST": text(request)}))


def answered(result: grpc.InferResult) -> dict[str, npt.NDArray[Any]]:
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def anything(triton: grpc.InferenceServerClient, model: str) -> dict[str, npt.NDArray[Any]]:
    """Inputs of the right kinds for a stage."""
    found: dict[str, npt.NDArray[Any]] = {}
    for tensor in triton.get_model_metadata(model).inputs:
        shape = [max(1, length) for length in tensor.shape]
        dtype = {"FP32": np.float32, "UINT8": np.uint8, "BYTES": np.object_}[tensor.datatype]
        found[tensor.name] = np.full(shape, b"{}", np.object_) if dtype is np.object_ else np.zeros(shape, dtype)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_only_the_handles_of_this_server(triton: grpc.InferenceServerClient, stage: str) -> None:
    inputs = anything(triton, stage)
    for handle in (b"{}", b"", b"0" * 32, b"\xff" * 32, b"0" * 100_000):
        assert refusal(triton, stage, inputs | {"PLAN": np.array([handle], np.object_)}) == NO_PLAN


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_only_tensors_that_a_stage_wrote(
    triton: grpc.InferenceServerClient, tiny: Path, stage: str
) -> None:
    """A good handle with tensors of the client: they could be of any size, or not finite."""
    for with_report in (False, True):
        first = prepared(triton, tiny)
        inputs = anything(triton, stage) | {"PLAN": first["PLAN"]}
        if with_report:
            inputs |= {"REPORT": first["REPORT"], "SEAL": first["SEAL"]}
        if with_report and stage == "text_encoder":  # it takes no other tensor
            assert "PROMPT_EMBEDS" in answered(ask(triton, stage, inputs))
        else:
            assert refusal(triton, stage, inputs).endswith(NOT_WRITTEN)


def test_a_plan_is_good_for_one_call_of_each_stage(triton: grpc.InferenceServerClient, tiny: Path) -> None:
    first = prepared(triton, tiny)
    inputs = {name: first[name] for name in ("PLAN", "REPORT", "SEAL")}
    assert answered(ask(triton, "text_encoder", inputs))["PROMPT_EMBEDS"].shape == (2, 77, 32)
    assert (
        refusal(triton, "text_encoder", inputs)
        == "PLAN: text_encoder has taken it before: send a new request to lora_image_to_image"
    )


def test_tensors_of_one_job_are_no_good_for_another(triton: grpc.InferenceServerClient, tiny: Path) -> None:
    first, other = (prepared(triton, tiny) for _ in range(2))
    inputs = {"PLAN": first["PLAN"], "REPORT": other["REPORT"], "SEAL": other["SEAL"]}
    assert refusal(triton, "text_encoder", inputs).endswith(NOT_WRITTEN)


def test_the_plan_says_nothing_about_the_server(triton: grpc.InferenceServerClient, tiny: Path) -> None:
    first = prepared(triton, tiny)
    sent = b"".join(bytes(first[name].flat[0]) for name in ("PLAN", "REPORT", "SEAL"))
    assert len(first["PLAN"].flat[0]) == 32
    assert str(tiny).encode() not in sent and b"/" not in sent


def test_jobs_that_nobody_takes_up_give_their_places_back(server: LocalServer, tiny: Path) -> None:
    """64 bare calls of `prepare` take every place. They are free again within seconds."""
    triton = grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))
    for _ in range(64):
        try:
            prepared(triton, tiny)
        except InferenceServerException as error:
            assert error.status() == "StatusCode.UNAVAILABLE"
    time.sleep(LOST_SECONDS + 1)
    prepared(triton, tiny)
