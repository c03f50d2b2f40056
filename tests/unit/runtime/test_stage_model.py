"""The seam to Triton, over a stand-in for the module that only Triton's stub has."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.metrics.stage_definitions import ANSWERS
from runtime.metrics.stage_metrics import StageMetrics
from runtime.stage_errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    StageError,
    Unavailable,
)
from runtime.stages.call import Call

Array = npt.NDArray[Any]


class Tensor:
    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, CANCELLED = range(6)

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.tensors, self.error = output_tensors or [], error


class Request:
    """A request, and its response sender."""

    def __init__(self, **tensors: Array) -> None:
        self._tensors = [Tensor(name, array) for name, array in tensors.items()]
        self.sent: list[tuple[InferenceResponse, int]] = []
        self.cancelled = self.is_full = self.is_damaged = self._counted = False

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def request_id(self) -> str:
        if self.is_damaged:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return "mine"

    def parameters(self) -> str:
        return json.dumps({"images": "data_uri"})

    def get_response_sender(self) -> Request:
        return self

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send(self, response: InferenceResponse, flags: int) -> None:
        if self._counted:
            raise RuntimeError("Unable to send response. Response sender has been closed.")
        self._counted = True  # the sender of the Python backend does so before it allocates memory
        if self.is_full:
            raise RuntimeError("Failed to increase the shared memory pool size")
        self.sent.append((response, flags))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake = ModuleType("triton_python_backend_utils")
    fake.__dict__.update(Tensor=Tensor, TritonError=TritonError, InferenceResponse=InferenceResponse)
    fake.__dict__.update(TRITONSERVER_RESPONSE_COMPLETE_FINAL=1, InferenceRequest=Request)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    modules = ("runtime.triton.stage_model", "runtime.triton.metrics_publisher")
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(modules[0])
    for name in modules:
        sys.modules.pop(name)


class Corrupting(Tensor):
    """What Python backends up to 24.10 do under numpy 2: every element arrives as the first."""

    def as_numpy(self) -> Array:
        return np.full_like(self._array, self._array.flat[0])


class Failing(Tensor):
    def as_numpy(self) -> Array:
        raise ValueError("unpack_from requires a buffer of at least 33686022 bytes")


def test_tensors_that_arrive_as_sent_are_accepted(module: Any) -> None:
    module.check_tensors()


@pytest.mark.parametrize("broken", [Corrupting, Failing])
def test_a_stage_refuses_to_start_where_tensors_do_not_survive(
    module: Any, broken: type[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.pb_utils, "Tensor", broken)
    with pytest.raises(RuntimeError, match="does not work with this Triton's Python backend"):
        module.check_tensors()


class Echo:
    """Answers with its input, or with the error that it was given."""

    def __init__(self, error: StageError | None = None) -> None:
        self.calls: list[Call] = []
        self.metrics = StageMetrics("finish")
        self.metrics.declare(ANSWERS)
        self._error = error

    @property
    def answers(self) -> dict[str, float]:
        """How many answers were counted, by code, without zeros."""
        return {dict(one.series.labels)["code"]: one.value for one in self.metrics.take() if one.value}

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        if self._error is None:
            call.reply({"OUT": call.inputs["IN"], "UNSENT": call.inputs["IN"]})
        else:
            call.fail(self._error)


def execute(module: Any, stage: Echo) -> InferenceResponse:
    model = module.StageModel()
    model._stage, model._outputs = stage, ["OUT"]
    request = Request(IN=np.arange(6.0).reshape(2, 3).T)
    assert model.execute([request]) is None
    assert [flags for _, flags in request.sent] == [1]
    return request.sent[0][0]


def test_a_call_carries_tensors_id_and_parameters_and_is_answered_by_its_sender(module: Any) -> None:
    stage = Echo()
    response = execute(module, stage)
    assert stage.calls[0].request_id == "mine" and stage.calls[0].parameters == {"images": "data_uri"}
    assert [tensor.name() for tensor in response.tensors] == ["OUT"]
    assert response.tensors[0].as_numpy().flags.c_contiguous
    assert np.array_equal(response.tensors[0].as_numpy(), stage.calls[0].inputs["IN"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("seed", "too odd"), TritonError.INVALID_ARG),
        (NotFound("none"), TritonError.NOT_FOUND),
        (Unavailable("full"), TritonError.UNAVAILABLE),
        (Cancelled(), TritonError.CANCELLED),
        (Internal("broken"), TritonError.INTERNAL),
    ],
)
def test_each_error_has_its_code(module: Any, error: StageError, code: int) -> None:
    response = execute(module, Echo(error))
    assert response.error is not None
    assert (response.error.code, response.error.message) == (code, str(error))


def test_an_answer_without_shared_memory_becomes_an_error(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "has_space", asked.append)
    model = module.StageModel()
    model._stage, model._outputs = Echo(), ["OUT"]
    request = Request(IN=np.array([b"four", b""], np.object_))
    model.execute([request])
    assert asked == [2 * (4 + 4 + 4)]
    [(response, flags)] = request.sent
    assert response.error is not None
    assert (flags, response.error.code) == (1, TritonError.UNAVAILABLE)
    assert response.error.message == "the server has no shared memory for the answer: try again later"
    assert model._stage.answers == {"UNAVAILABLE": 1}


def test_a_stage_that_cannot_send_ends(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton takes no second answer. The supervisor then ends the server, so no client waits without end."""

    def ended(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(module.os, "_exit", ended)
    model = module.StageModel()
    model._stage, model._outputs = Echo(), ["OUT"]
    request = Request(IN=np.zeros(3))
    request.is_full = True
    with pytest.raises(SystemExit):
        model.execute([request])


def test_a_request_whose_id_is_not_text_is_refused(module: Any) -> None:
    model = module.StageModel()
    model._stage, model._outputs = Echo(), ["OUT"]
    request = Request(IN=np.zeros(3))
    request.is_damaged = True
    model.execute([request])
    assert model._stage.calls == []
    [(response, _)] = request.sent
    assert response.error is not None
    assert response.error.code == TritonError.INVALID_ARG
    assert response.error.message == "the request's id and parameters must be UTF-8"


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, "OK"), (InvalidArgument("seed", "too odd"), "INVALID_ARG"), (DeadlineExceeded(), "DEADLINE_EXCEEDED")],
)
def test_each_answer_is_counted_by_its_code(module: Any, error: StageError | None, code: str) -> None:
    stage = Echo(error)
    for _ in range(2):
        execute(module, stage)
    assert stage.answers == {code: 2}


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_call_knows_whether_its_client_is_gone(module: Any, cancelled: bool) -> None:
    model, stage = module.StageModel(), Echo()
    model._stage, model._outputs = stage, ["OUT"]
    request = Request(IN=np.zeros(3))
    request.cancelled = cancelled
    model.execute([request])
    assert stage.calls[0].is_cancelled() is cancelled
