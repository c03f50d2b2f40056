"""The `prepare` stage: admission at once, then validation and fetching in a bounded pool."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pydantic import ValidationError

from lorikeet.schema import ImageToImageInput, describe_errors
from runtime.board import Board, JobRef, State
from runtime.errors import InvalidArgument, Unavailable
from runtime.files.sources import Request, Sources
from runtime.files.store import Pins, Store
from runtime.settings import Settings
from runtime.stages.prepare.planner import Planner, Prepared
from runtime.stages.stage import Array, Call, Desk, json_tensor


class PrepareStage:
    """REQUEST BYTES [1], FILES BYTES [n], IMAGE UINT8 [n] -> PLAN BYTES [1], INIT_IMAGE UINT8 [H, W, 3], REPORT.

    The request parameter `job_token`, with the request's id, lets its sender ask for progress and cancel.
    """

    name = "prepare"

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings, self._board, self._desk = settings, board, Desk(self.name, board)
        self._store = Store(settings.store, int(settings.store_bytes))
        self._planner = Planner(settings, self._store, Sources(settings, self._store))
        self._pool = ThreadPoolExecutor(settings.fetch_workers, self.name)
        self._kept: dict[JobRef, Pins] = {}
        self._keeping = threading.Lock()

    def submit(self, call: Call) -> None:
        job = None
        try:
            job = self._admit(call)
            self._desk.report(job, State.WAITING)
            self._pool.submit(self._work, job, call, time.monotonic())
        except Exception as error:
            self._desk.fail(job, call, error)

    def close(self) -> None:
        self._desk.close()
        self._pool.shutdown(wait=True)  # what waits is answered, by its check

    def _admit(self, call: Call) -> JobRef:
        """A place on the board. Called by Triton's one thread for this stage."""
        if self._board.draining:
            raise Unavailable("the server is stopping")
        limit = self._settings.max_in_flight
        try:
            job = self._board.open(call.request_id, str(call.parameters.get("job_token", "")), limit)
        except ValueError as error:
            raise InvalidArgument("request_id", "a request with this id is in flight") from error
        if job is None:
            raise Unavailable(f"{limit} requests are in flight already")
        return job

    def _work(self, job: JobRef, call: Call, started: float) -> None:
        try:
            self._desk.check(job)
            self._desk.report(job, State.RUNNING)
            prepared = self._plan(job, call, started)
            self._desk.report(job, State.DONE)
            call.timings[self.name] = time.monotonic() - started
            call.reply(
                {
                    "PLAN": prepared.plan.to_tensor(),
                    "INIT_IMAGE": prepared.image,
                    "REPORT": json_tensor({"timings": call.timings}),
                }
            )
        except BaseException as error:
            self._desk.fail(job, call, error)

    def _plan(self, job: JobRef, call: Call, started: float) -> Prepared:
        pins = self._store.pins()
        try:
            files = Request(_files(call), pins, lambda: self._desk.check(job))
            prepared = self._planner.plan(_request(call), files, job, started)
        except BaseException:
            pins.release()
            raise
        self._keep(job, pins)
        return prepared

    def _keep(self, job: JobRef, pins: Pins) -> None:
        """Keep the job's files in the store, and let go of those of jobs that have ended since."""
        with self._keeping:
            live = set(self._board.live())
            for ended in self._kept.keys() - live:
                self._kept.pop(ended).release()
            self._kept[job] = pins


def _request(call: Call) -> ImageToImageInput:
    """The validated input; IMAGE, when sent, is the one file that image_url then means."""
    tensor = call.inputs.get("REQUEST")
    if tensor is None or tensor.size != 1:
        raise InvalidArgument("REQUEST", "expected one element, the input as JSON")
    try:
        request = ImageToImageInput.model_validate_json(tensor.reshape(-1)[0])
    except ValidationError as error:
        raise InvalidArgument("", describe_errors(error)) from error
    if _image(call) is not None:
        if request.image_url is not None:
            raise InvalidArgument("image_url", "give either image_url or the tensor IMAGE")
        request.image_url = f"tensor:{len(_files(call)) - 1}"
    return request


def _files(call: Call) -> list[bytes]:
    """What was sent along: FILES, and behind them IMAGE."""
    files = [bytes(item) for item in call.inputs.get("FILES", np.array([], np.object_)).reshape(-1)]
    image = _image(call)
    return files if image is None else [*files, image.tobytes()]


def _image(call: Call) -> Array | None:
    image = call.inputs.get("IMAGE")
    return image if image is not None and image.size else None
