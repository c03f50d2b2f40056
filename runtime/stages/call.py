"""A call: one request at one stage, with its tensors, its parameters and its answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.stage_errors import InvalidArgument, StageError

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Call:
    """One request at one stage. `inputs` has the tensors that were sent, by name.

    Any thread may call `reply` or `fail`; only the first call sends an answer. `timings`: what this stage measured, in
    seconds by name, and `warnings`: what it ignored of the request; for the response. `report` includes both.
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
        self.warnings: list[str] = []
        self._send = send
        self._lock, self._answered = threading.Lock(), False

    def bounded(self, name: str, longest: Sequence[int]) -> Array:
        """The input `name`, at most `longest` in each dimension. Raises InvalidArgument.

        The ensemble's tensors always fit. A client that calls the stage's model directly may send any shape.
        """
        found = self.inputs[name]
        if len(found.shape) != len(longest) or any(np.array(found.shape) > longest):
            raise InvalidArgument(name, f"expected a shape of at most {list(longest)}, found {list(found.shape)}")
        return found

    def exact(self, name: str, shape: Sequence[int]) -> Array:
        """The input `name`, of exactly this shape. Raises InvalidArgument."""
        found = self.inputs[name]
        if list(found.shape) != list(shape):
            raise InvalidArgument(name, f"expected the shape {list(shape)}, found {list(found.shape)}")
        return found

    def report(self, **more: Any) -> dict[str, Any]:
        """The REPORT of the earlier stages (`prepare` has none), with `more`, this stage's timings and its warnings.

        Raises InvalidArgument.
        """
        earlier: dict[str, Any] = {"timings": {}}
        if (tensor := self.inputs.get("REPORT")) is not None:
            try:
                earlier = _Report.model_validate_json(tensor.reshape(-1)[0]).model_dump(exclude_unset=True)
            except ValueError as error:
                raise InvalidArgument("REPORT", f"not written by a stage: send the request to {IMAGE_MODEL}") from error
        warnings = [*earlier.get("warnings", ()), *self.warnings]
        return earlier | more | {"timings": earlier["timings"] | self.timings, "warnings": warnings}

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
    """The facts about a request that stages collect for its response."""

    model_config = ConfigDict(extra="forbid")
    timings: dict[str, float]
    warnings: list[str] = []
    engine: str = ""
    precision: str = ""


def json_tensor(value: Any) -> Array:
    """A JSON value as BYTES [1]."""
    return bytes_tensor([json.dumps(value).encode()])


def bytes_tensor(items: Sequence[bytes]) -> Array:
    """BYTES [n]."""
    return np.array(items, dtype=np.object_)
