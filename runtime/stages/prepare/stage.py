"""The `prepare` stage: admits a request at once; a worker thread then validates it and fetches its files."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from lorikeet.protocol.parameters import JobParameters, ParameterError
from lorikeet.protocol.tensors import FILES, IMAGE, REQUEST
from lorikeet.schema import ImageToImageInput
from runtime.files.blob_locks import Pins
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, Unavailable
from runtime.stages.call import Array, Call, json_tensor
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.memory_estimate import Need, need
from runtime.stages.prepare.planner import Admission, Prepared, make_plan
from runtime.stages.prepare.request_json import read_request


class PrepareStage:
    """REQUEST BYTES [1], FILES BYTES [n], IMAGE UINT8 [n] -> PLAN BYTES [1], PICTURES UINT8 [bytes], REPORT.

    The Triton request's parameters are the `JobParameters`.
    """

    name = "prepare"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self._settings, self._job_table, self._reporter = settings, job_table, JobReporter(self.name, job_table)
        self._store = Store(settings.store, int(settings.store_bytes))
        self._files = FileResolver(settings, self._store)
        # One thread for each admitted request: a slow download does not delay other requests.
        self._workers = WorkerPool(settings.max_in_flight, self.name)
        self._kept: dict[JobRef, _Kept] = {}
        self._keeping = threading.Lock()

    def submit(self, call: Call) -> None:
        job = None
        try:
            admission = self._admit(call)
            job = admission.job
            self._reporter.report(job, State.WAITING)
            work = partial(self._work, admission, call)
            self._workers.submit(self._reporter.task(job, call, admission.priority, work))
        except Exception as error:
            self._reporter.fail(job, call, error)

    def close(self) -> None:
        self._reporter.close()
        self._workers.close()  # the check of each queued call raises, which answers the call

    def _admit(self, call: Call) -> Admission:
        """Give the request a slot in the job table. Only the stage's Triton thread may call this."""
        if self._job_table.draining:
            raise Unavailable("the server is stopping")
        limit, now = self._settings.max_in_flight, time.monotonic()
        try:
            parameters = JobParameters.from_triton(call.parameters)
        except ParameterError as error:
            raise InvalidArgument(error.name, error.reason) from error
        deadline = now + parameters.timeout if parameters.timeout else math.inf
        try:
            job = self._job_table.open(call.request_id, parameters.token, limit, deadline)
        except ValueError as error:
            raise InvalidArgument("request_id", "a request with this id is in flight: choose another id") from error
        if job is None:
            raise Unavailable(f"{limit} requests are already in flight: try again later")
        return Admission(job, now, parameters.priority)

    def _work(self, admission: Admission, call: Call) -> None:
        job = admission.job
        self._reporter.check(job)
        self._reporter.report(job, State.RUNNING)
        prepared = self._plan(admission, call)
        self._reporter.report(job, State.DONE)
        call.timings[self.name] = time.monotonic() - admission.started
        plan = prepared.plan.to_tensor()
        self._job_table.seal(job, plan[0])
        call.reply(
            {
                "PLAN": plan,
                "PICTURES": prepared.pictures.tensor,
                "REPORT": json_tensor(call.report()),
            }
        )

    def _plan(self, admission: Admission, call: Call) -> Prepared:
        pins = self._store.pins()
        try:
            sent = _files(call)
            files = ResolveContext(sent, pins, lambda: self._reporter.check(admission.job))
            context = PrepareContext(self._settings, self._store, self._files, files)
            prepared = make_plan(_request(call, int(self._settings.max_request_bytes)), context, admission)
            self._keep(admission.job, pins, need(prepared.plan, sum(map(len, sent))))
        except BaseException:
            pins.release()
            raise
        return prepared

    def _keep(self, job: JobRef, pins: Pins, needed: Need) -> None:
        """Reserve the job's files and memory, after releasing those of jobs that have ended.

        Raises InvalidArgument when the job can never fit, Unavailable when other jobs use the memory it needs.
        """
        budget = int(self._settings.memory_bytes)
        with self._keeping:
            live = set(self._job_table.live())
            for ended in self._kept.keys() - live:
                self._kept.pop(ended).pins.release()
            if needed.own + needed.peak > budget:
                gigabytes = (needed.own + needed.peak) / 1e9
                raise InvalidArgument(
                    "",
                    f"its pictures need about {gigabytes:.1f} GB of memory, the server has {budget / 1e9:.1f} GB "
                    "(LORIKEET_MEMORY_BYTES): ask for fewer or smaller pictures",
                )
            if sum(kept.own for kept in self._kept.values()) + needed.own + needed.peak > budget:
                raise Unavailable("other requests in flight use the memory that this one needs: try again later")
            self._kept[job] = _Kept(pins, needed.own)


@dataclass(frozen=True)
class _Kept:
    """The reservation of a job: its files in the store, and `own` bytes of memory."""

    pins: Pins
    own: int


def _request(call: Call, max_bytes: int) -> ImageToImageInput:
    """The validated input. When the tensor IMAGE was sent, image_url refers to it."""
    tensor = call.inputs.get(REQUEST)
    if tensor is None or tensor.size != 1:
        raise InvalidArgument(REQUEST, "expected one element, the input as JSON")
    request = read_request(tensor.reshape(-1)[0], max_bytes)
    if _image(call) is not None:
        if request.image_url is not None:
            raise InvalidArgument("image_url", "give either image_url or the tensor IMAGE")
        request.image_url = f"tensor:{len(_files(call)) - 1}"
    return request


def _files(call: Call) -> list[bytes]:
    """The files that were sent in tensors: those of FILES, then IMAGE."""
    files = [bytes(item) for item in call.inputs.get(FILES, np.array([], np.object_)).reshape(-1)]
    image = _image(call)
    return files if image is None else [*files, image.tobytes()]


def _image(call: Call) -> Array | None:
    image = call.inputs.get(IMAGE)
    return image if image is not None and image.size else None
