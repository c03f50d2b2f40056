"""A call: one request at one stage, with its tensors, its parameters and its one answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from runtime.stage_errors import InvalidArgument, StageError

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Call:
    """One request at one stage: tensors by name (absent ones missing), Triton's request id and parameters.

    `reply` and `fail` may be called from any thread; the first one counts. `timings`: seconds by what they were spent
    on, for the response, which `report` passes on.
    """

    def __init__(
        self,
        inputs: Tensors,
        send: Callable[[Tensors | StageError], None],
        request_id: str = "",
        parameters: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        self.inputs, self.request_id, self.parameters = inputs, request_id, parameters or {}
        self.timings: dict[str, float] = {}
        self._send = send
        self._lock, self._answered = threading.Lock(), False

    def bounded(self, name: str, longest: Sequence[int]) -> Array:
        """An input that is in no dimension longer than this. The ensemble's never are; a client that calls the stage's
        model itself may send anything. Raises InvalidArgument."""
        found = self.inputs[name]
        if len(found.shape) != len(longest) or any(np.array(found.shape) > longest):
            raise InvalidArgument(name, f"the request has at most {list(longest)}, not {list(found.shape)}")
        return found

    def exact(self, name: str, shape: Sequence[int]) -> Array:
        """An input of this very shape. Raises InvalidArgument."""
        found = self.inputs[name]
        if list(found.shape) != list(shape):
            raise InvalidArgument(name, f"expected the shape {list(shape)}, not {list(found.shape)}")
        return found

    def report(self, **more: Any) -> dict[str, Any]:
        """What the stages before said of the request (REPORT; `prepare` is the first), and what this one adds.
        Raises InvalidArgument."""
        earlier: dict[str, Any] = {"timings": {}}
        if (tensor := self.inputs.get("REPORT")) is not None:
            try:
                earlier = _Report.model_validate_json(tensor.reshape(-1)[0]).model_dump(exclude_unset=True)
            except ValueError as error:
                raise InvalidArgument("REPORT", "no stage wrote it") from error
        return earlier | more | {"timings": earlier["timings"] | self.timings}

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


class _Report(BaseModel):
    """What stages say of a request, for its response."""

    model_config = ConfigDict(extra="forbid")
    timings: dict[str, float]
    engine: str = ""
    precision: str = ""


def json_tensor(value: Any) -> Array:
    """A JSON value as BYTES [1]."""
    return bytes_tensor([json.dumps(value).encode()])


def bytes_tensor(items: Sequence[bytes]) -> Array:
    """BYTES [n]."""
    return np.array(items, dtype=np.object_)
