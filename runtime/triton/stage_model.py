"""Runs a stage as a non-decoupled Triton Python model.

`execute` returns None; each request is answered later, through its response sender.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pkgutil
import sys
import threading
from typing import Any, ClassVar, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils

from lorikeet.protocol.errors import DEADLINE_EXCEEDED
from runtime.jobs.job_table import JobTable
from runtime.memory import keep_little
from runtime.metrics.definition import OK
from runtime.metrics.stage_definitions import ANSWERS
from runtime.settings import Settings, job_table_path, load_settings
from runtime.shared_memory import has_space
from runtime.stage_errors import DeadlineExceeded, InvalidArgument, StageError, Unavailable
from runtime.stages.call import Call, Tensors
from runtime.stages.stage import Stage
from runtime.triton.heart import Heart
from runtime.triton.lean_imports import Lean, lean_imports
from runtime.triton.metrics_publisher import MetricsPublisher

log = logging.getLogger("lorikeet")

# Guards the stub's shared memory: the stub (24.10) segfaults when several threads use it at the same time.
_STUB = threading.Lock()


class StageClass(Protocol):
    """A callable that makes a stage."""

    def __call__(self, settings: Settings, job_table: JobTable) -> Stage: ...


class StageModel:
    """The base class of every `TritonPythonModel`.

    A model.py sets `stage_class`, "module:class", and the `libraries` of the stage whose import can be lean.
    `keeps_little`: see `runtime/memory.py`; for stages that compute with no network.
    """

    stage_class: ClassVar[str]
    libraries: ClassVar[tuple[Lean, ...]] = ()
    keeps_little: ClassVar[bool] = False
    _stage: Stage

    def initialize(self, args: dict[str, Any]) -> None:
        logging.basicConfig(stream=sys.stderr, format="lorikeet %(levelname)s %(message)s", level=logging.INFO)
        check_tensors()
        if self.keeps_little:
            keep_little()
        name = str(args["model_name"])
        self._outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        job_table = JobTable(job_table_path())
        self._heart = Heart(job_table, name)
        gc.disable()  # an import makes many objects, and almost all of them stay
        with lean_imports(*self.libraries):
            stage_class: StageClass = pkgutil.resolve_name(self.stage_class)
            self._stage = stage_class(load_settings(), job_table)
        gc.freeze()  # what was imported stays: no collection needs to look at it
        gc.enable()
        self._stage.metrics.declare(ANSWERS)
        self._publisher = MetricsPublisher(self._stage.metrics, _STUB)
        self._heart.ready(self._stage.workers)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            if call := self._call(request):
                self._stage.submit(call)

    def finalize(self) -> None:
        self._stage.close()
        self._publisher.stop()
        self._heart.stop()

    def _call(self, request: pb_utils.InferenceRequest) -> Call | None:
        """The call of a request; None when the request is answered with an error."""
        sender = request.get_response_sender()

        def send(answer: Tensors | StageError) -> None:
            with _STUB:
                if not (isinstance(answer, StageError) or has_space(_bytes(answer))):
                    log.error("an answer was not sent: /dev/shm is full")
                    answer = Unavailable("the server has no shared memory for the answer: try again later")
                _send(sender, self._response(answer))
            self._stage.metrics.count(ANSWERS, code=_code(answer))

        def is_cancelled() -> bool:
            with _STUB:
                return bool(sender.is_cancelled())

        try:
            with _STUB:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            parameters = json.loads(request.parameters() or "{}")
            return Call(inputs, send, request.request_id(), parameters, is_cancelled)
        except ValueError:  # of Python's decoder; an exception here would reach the client with a stack trace
            send(InvalidArgument("", "the request's id and parameters must be UTF-8"))
            return None

    def _response(self, answer: Tensors | StageError) -> pb_utils.InferenceResponse:
        if isinstance(answer, StageError):
            error = pb_utils.TritonError(str(answer), getattr(pb_utils.TritonError, answer.code))
            return pb_utils.InferenceResponse(error=error)
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(answer[name])) for name in self._outputs]
        return pb_utils.InferenceResponse(tensors)


def _send(sender: pb_utils.InferenceResponseSender, response: pb_utils.InferenceResponse) -> None:
    """Send an answer, or end this process.

    Triton's sender counts an answer before it allocates the answer's memory, and refuses a second one (python_backend,
    src/response_sender.cc, `UpdateStateAndCounters`). So the client of an answer that failed would wait without end.
    When the process ends, the supervisor ends the server, and every client hears of it.
    """
    try:
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception:
        log.critical("an answer could not be sent; this stage ends", exc_info=True)
        os._exit(1)


def _bytes(answer: Tensors) -> int:
    """Bytes of an answer's tensors, as Triton stores them: an element of BYTES has four more for its length."""
    return sum(
        sum(4 + len(item) for item in array.reshape(-1)) if array.dtype == np.object_ else array.nbytes
        for array in answer.values()
    )


def _code(answer: Tensors | StageError) -> str:
    """The label `code` of an answer."""
    if isinstance(answer, DeadlineExceeded):
        return DEADLINE_EXCEEDED
    return answer.code if isinstance(answer, StageError) else OK


def check_tensors() -> None:
    """Raises RuntimeError when a tensor changes on its way through the Python backend.

    Python backends up to 24.10 silently corrupt arrays under numpy 2, and the pictures would be wrong.
    """
    for sent in (np.arange(1, 7, dtype=np.float32), np.array([b"lorikeet", b""], dtype=np.object_)):
        try:
            got = pb_utils.Tensor("check", sent).as_numpy()
        except Exception as error:
            raise RuntimeError(_MISMATCH) from error
        if got.shape != sent.shape or list(got) != list(sent):
            raise RuntimeError(_MISMATCH)


_MISMATCH = (
    f"numpy {np.__version__} does not work with this Triton's Python backend: it changed a test tensor. "
    "Use numpy 1.26.4 with Triton 24.10 or older"
)
