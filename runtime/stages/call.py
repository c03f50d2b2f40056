"""A call: one request at one stage, with its tensors, its parameters and its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.stage_errors import StageError
from runtime.stages.report import Report

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Call:
    """One request at one stage. `inputs` has the tensors that were sent, by name.

    Any thread may call `reply` or `fail`; only the first call sends an answer. `report`: what this stage and the
    earlier ones have measured. `is_cancelled` asks Triton whether the client has cancelled or closed its call.
    """

    def __init__(
        self,
        inputs: Tensors,
        send: Callable[[Tensors | StageError], None],
        request_id: str = "",
        parameters: Mapping[str, str | int | bool] | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.inputs, self.request_id, self.parameters = inputs, request_id, parameters or {}
        self.report = Report()
        self.is_cancelled = is_cancelled
        self._send = send
        self._lock, self._answered = threading.Lock(), False

    def reply(self, outputs: Tensors) -> None:
        self._answer(outputs)

    def fail(self, error: StageError) -> None:
        self._answer(error)

    def _answer(self, answer: Tensors | StageError) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._send(answer)


def bytes_tensor(items: Sequence[bytes]) -> Array:
    """BYTES [n]."""
    return np.array(items, dtype=np.object_)
