"""The `prepare` stage: admits a request at once; a worker thread then validates it and fetches its files."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from lorikeet.protocol.parameters import DATA_URI, IMAGES, JobParameters, ParameterError, check_name
from lorikeet.protocol.tensors import FILES, IMAGE, REQUEST
from lorikeet.schema import ImageToImageInput
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.jobs.activity import Worker
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.metrics.stage_definitions import STORE_BYTES, STORE_EVICTIONS
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, Unavailable
from runtime.stages.call import Array, Call, bytes_tensor
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.memory_estimate import need
from runtime.stages.prepare.planner import Admission, Prepared, make_plan
from runtime.stages.prepare.request_json import read_request
from runtime.stages.prepare.reservations import Reservations
from runtime.stages.stage import Stage


class PrepareStage(Stage):
    """REQUEST BYTES [1], FILES BYTES [n], IMAGE UINT8 [n] -> PLAN BYTES [1], PICTURES, IMAGE_PROMPTS and
    CONTROLS UINT8 [bytes], REPORT, SEAL.

    The Triton request's parameters are the `JobParameters`.
    """

    name = "prepare"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._store = Store(settings.store, int(settings.store_bytes))
        self.metrics.watch(STORE_BYTES, lambda: self._store.nbytes)
        self.metrics.watch(STORE_EVICTIONS, lambda: self._store.evictions)
        self._files = FileResolver(settings, self._store)
        # One thread for each admitted request: a slow download does not delay other requests.
        self._pool = WorkerPool(settings.max_in_flight, self.name)
        self._reservations = Reservations(job_table, int(settings.memory_bytes))

    @property
    def workers(self) -> tuple[Worker, ...]:
        return (self._pool,)

    def close(self) -> None:
        super().close()
        self._reservations.close()

    def _accept(self, call: Call) -> None:
        admission = self._admit(call)
        self._queue(self._pool, admission.job, admission.priority, call, partial(self._work, admission, call))

    def _admit(self, call: Call) -> Admission:
        """Give the request a slot in the job table."""
        if self.job_table.draining:
            raise Unavailable("the server is stopping")
        limit, now = self.settings.max_in_flight, time.monotonic()
        try:
            check_name("request_id", call.request_id)
            parameters = JobParameters.from_triton(call.parameters)
        except ParameterError as error:
            raise InvalidArgument(error.name, error.reason) from error
        # A client with a token can cancel its request and renew a lease. Any other one may be gone without a trace.
        timeout = parameters.timeout or (math.inf if parameters.token else self.settings.default_timeout_s)
        lease = (parameters.lease if parameters.token else None) or math.inf
        try:
            job = self.job_table.open(call.request_id, parameters.token, limit, now + timeout, lease)
        except ValueError as error:
            raise InvalidArgument("request_id", "a request with this id is in flight: choose another id") from error
        if job is None:
            raise Unavailable(f"{limit} requests are already in flight: try again later")
        return Admission(job, now, parameters.priority)

    def _work(self, admission: Admission, call: Call) -> None:
        job = admission.job
        self.reporter.check(job)
        self.reporter.report(job, State.RUNNING)
        prepared = self._plan(admission, call)
        self.reporter.report(job, State.DONE)
        call.report.timings[self.name] = time.monotonic() - admission.started
        outputs = {"PLAN": bytes_tensor([self.job_table.make_handle(job)]), **prepared.pictures.tensors}
        self._reply(job, call, outputs)

    def _plan(self, admission: Admission, call: Call) -> Prepared:
        pins = self._store.pins()
        try:
            sent = _files(call)
            files = ResolveContext(sent, pins, lambda: self.reporter.check(admission.job))
            context = PrepareContext(self.settings, self._store, self._files, files)
            prepared = make_plan(_request(call, sent, int(self.settings.max_request_bytes)), context, admission)
            needed = need(
                prepared.plan,
                sum(map(len, sent)),
                block_rows=self.settings.block_rows,
                inline=call.parameters.get(IMAGES) == DATA_URI,
                parameters=_parameter_bytes(call),
            )
            self._reservations.hold(admission.job, pins, needed, prepared.plan.to_json())
        except BaseException:
            pins.release()
            raise
        return prepared


def _request(call: Call, sent: Sequence[bytes], max_bytes: int) -> ImageToImageInput:
    """The validated input. When the tensor IMAGE was sent, image_url refers to it: the last one of the sent files."""
    tensor = call.inputs.get(REQUEST)
    if tensor is None or tensor.size != 1:
        raise InvalidArgument(REQUEST, "expected one element, the input as JSON")
    request = read_request(tensor.reshape(-1)[0], max_bytes)
    if _image(call) is not None:
        if request.image_url is not None:
            raise InvalidArgument("image_url", "give either image_url or the tensor IMAGE")
        request.image_url = f"tensor:{len(sent) - 1}"
    return request


def _files(call: Call) -> list[bytes]:
    """The files that were sent in tensors: those of FILES, then IMAGE."""
    files = [bytes(item) for item in call.inputs.get(FILES, np.array([], np.object_)).reshape(-1)]
    image = _image(call)
    return files if image is None else [*files, image.tobytes()]


def _parameter_bytes(call: Call) -> int:
    """Bytes of the request's id and parameters, at most: a character has up to four."""
    texts = [call.request_id, *call.parameters, *map(str, call.parameters.values())]
    return 4 * sum(map(len, texts))


def _image(call: Call) -> Array | None:
    image = call.inputs.get(IMAGE)
    return image if image is not None and image.size else None
