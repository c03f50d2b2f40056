"""`jobs`: progress, lease and cancellation of a request, for a client with the request's id and token. No torch."""

from __future__ import annotations

from pydantic import ValidationError

from lorikeet.protocol.tensors import REQUEST, RESPONSE
from lorikeet.schema import JobRequest, JobStatus
from runtime.jobs.job_table import State
from runtime.stage_errors import InvalidArgument, NotFound
from runtime.stages.call import Call, bytes_tensor
from runtime.stages.stage import Stage

_MAX_BYTES = 4096
_WORDS = {
    State.NONE: "queued",
    State.WAITING: "queued",
    State.RUNNING: "running",
    State.DONE: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


class JobsStage(Stage):
    """REQUEST BYTES [1] (a JobRequest) -> RESPONSE BYTES [1] (a JobStatus).

    An unknown id and a wrong token get the same NOT_FOUND, so that a client cannot discover the request ids of others.
    """

    name = "jobs"

    def _accept(self, call: Call) -> None:
        call.reply({RESPONSE: bytes_tensor([self._status(call).model_dump_json().encode()])})

    def _status(self, call: Call) -> JobStatus:
        body = call.inputs[REQUEST].reshape(-1)
        if body.size and len(body[0]) > _MAX_BYTES:
            raise InvalidArgument(REQUEST, f"{len(body[0])} bytes, expected at most {_MAX_BYTES}")
        try:
            request = JobRequest.model_validate_json(body[0])
        except (ValidationError, IndexError) as error:
            raise InvalidArgument(
                REQUEST, 'expected a JSON object with "action", "request_id" and "job_token"'
            ) from error
        job = self.job_table.find(request.request_id, request.job_token)
        if job is None:
            raise NotFound("no request with this id and token")
        if request.action == "cancel":
            self.job_table.cancel(job)
        elif request.action == "renew":
            self.job_table.renew(job)
        progress = self.job_table.progress(job)
        word = _WORDS[progress.state]
        return JobStatus(status=word, stage=progress.stage, step=progress.step, of=progress.of)
