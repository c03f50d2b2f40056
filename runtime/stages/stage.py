"""What a stage is: it takes calls, returns at once, and answers each call later, exactly once.

`Call` is one request at one stage. `WorkerStage` is the common kind, which works on one call at a time on a thread of
its own; the denoiser, which interleaves calls step by step, is the other kind.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from lorikeet.wire import IMAGE_MODEL
from runtime.board import Board, JobRef, State
from runtime.errors import Cancelled, DeadlineExceeded, Internal, InvalidArgument, StageError, Unavailable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.workers import Task, Workers

log = logging.getLogger("lorikeet")

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


class Stage(Protocol):
    """One Triton model's logic."""

    def submit(self, call: Call) -> None:
        """Take a call; returns at once and never raises."""

    def close(self) -> None:
        """End the stage's threads. Calls that are still open are answered UNAVAILABLE."""


class Desk:
    """One stage's dealings with the board: it reports each job's course here, and hears whether to stop."""

    def __init__(self, stage: str, board: Board) -> None:
        self.stage, self.board = stage, board
        self.closed = False

    def close(self) -> None:
        """The stage is ending: from now on every check says so."""
        self.closed = True

    def take(self, call: Call) -> Plan:
        """The plan of a call, reported as waiting. Called by Triton's one thread for this stage.

        Clients can call this stage's model themselves. So it takes only what `prepare` wrote for a job of this server,
        and takes it once: a plan names files that were checked, and a place among the requests in flight.

        Raises InvalidArgument."""
        tensor = call.inputs["PLAN"]
        job = self.board.sealed(tensor.reshape(-1)[0])
        if job is None:
            raise InvalidArgument("PLAN", f"not made by this server: ask {IMAGE_MODEL}")
        if self.board.has_seen(job, self.stage):
            raise InvalidArgument("PLAN", f"{self.stage} has had it already")
        self.report(job, State.WAITING)
        return Plan.from_tensor(tensor)

    def check(self, job: JobRef) -> None:
        """Raises Cancelled when the client cancelled, DeadlineExceeded when the job's time is over, Unavailable when
        the server is stopping."""
        if self.board.cancelled(job):
            raise Cancelled
        if self.board.expired(job):
            raise DeadlineExceeded
        if self.closed or self.board.draining:
            raise Unavailable("the server is stopping")

    def task(self, job: JobRef, call: Call, priority: int, work: Callable[[], None]) -> Task:
        """`work` for a line of workers: stopped when the job is, and answering the call when it fails."""
        return Task(priority, work, lambda: self.check(job), lambda error: self.fail(job, call, error))

    def report(self, job: JobRef, state: State, step: int = 0, of: int = 0) -> None:
        self.board.report(job, self.stage, state, step, of)

    def fail(self, job: JobRef | None, call: Call, error: BaseException) -> None:
        """Answer a call with an error; one that is nobody's fault is logged and told without its trace."""
        if not isinstance(error, StageError):
            log.error("%s failed", self.stage, exc_info=error)
            error = Internal(f"{self.stage} failed ({type(error).__name__}); the server's log says more")
        if job is not None:
            self.report(job, State.CANCELLED if isinstance(error, Cancelled) else State.FAILED)
        call.fail(error)


def json_tensor(value: Any) -> Array:
    """A JSON value as BYTES [1]."""
    return bytes_tensor([json.dumps(value).encode()])


def bytes_tensor(items: Sequence[bytes]) -> Array:
    """BYTES [n]."""
    return np.array(items, dtype=np.object_)


class WorkerStage(ABC):
    """A stage that works on one call at a time: by priority, then in the order of their coming."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, board: Board) -> None:
        self.settings, self.desk = settings, Desk(self.name, board)
        self._workers = Workers(1, self.name)

    @abstractmethod
    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        """The stage's outputs for a job. May raise a StageError, or anything for what is not the request's fault."""

    def submit(self, call: Call) -> None:
        try:
            plan = self.desk.take(call)
            self._workers.submit(self.desk.task(plan.job, call, plan.priority, lambda: self._work(plan, call)))
        except Exception as error:
            self.desk.fail(None, call, error)

    def close(self) -> None:
        self.desk.close()
        self._workers.close()  # what waits is answered, by its check

    def _work(self, plan: Plan, call: Call) -> None:
        self.desk.check(plan.job)
        self.desk.report(plan.job, State.RUNNING)
        begun = time.monotonic()
        outputs = self.process(plan, call)
        self.desk.report(plan.job, State.DONE)
        call.timings[self.name] = time.monotonic() - begun
        call.reply(outputs | {"REPORT": json_tensor(call.report())})
