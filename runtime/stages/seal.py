"""Protects the tensors between stages. A stage accepts only tensors that stages of this server wrote for the same job.

Triton has no private models, so clients can call every stage with any tensors. REPORT has the digest of each tensor
that the stages have written. SEAL is the digest of the job's id and REPORT with the server's key, which no client has.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import numpy as np

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_table import JobRef
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Array, Call, Tensors, bytes_tensor
from runtime.stages.report import Report, TensorFacts

_UNDIGESTED = ("PLAN", "REPORT", "SEAL")  # PLAN is a random handle, and SEAL covers REPORT


def with_seal(key: bytes, job: JobRef, report: Report, outputs: Tensors) -> dict[str, Array]:
    """A stage's outputs with REPORT BYTES [1] and SEAL BYTES [1]."""
    facts = {name: _facts(array) for name, array in outputs.items() if name not in _UNDIGESTED}
    text = report.model_copy(update={"tensors": report.tensors | facts}).model_dump_json().encode()
    return {**outputs, "REPORT": bytes_tensor([text]), "SEAL": bytes_tensor([_seal(key, job, text)])}


def check_seal(key: bytes, job: JobRef, call: Call) -> None:
    """Check every tensor of a call, and set `call.report` to that of the earlier stages.

    Raises InvalidArgument when another sender wrote a tensor, or when it was written for another job.
    """
    text, seal = (bytes(call.inputs[name].reshape(-1)[0]) for name in ("REPORT", "SEAL"))
    if not hmac.compare_digest(seal, _seal(key, job, text)):
        raise InvalidArgument("SEAL", _refusal("REPORT"))
    report = Report.model_validate_json(text)
    for name, array in call.inputs.items():
        if name not in _UNDIGESTED and not _is_written(array, name, report.tensors):
            raise InvalidArgument(name, _refusal("it"))
    call.report = report


def _is_written(array: Array, name: str, tensors: Mapping[str, TensorFacts]) -> bool:
    facts = tensors.get(name)
    # The shape is compared first, so a large tensor of another sender is not read.
    return (
        facts is not None and (str(array.dtype), array.shape) == (facts.dtype, facts.shape) and _facts(array) == facts
    )


def _facts(array: Array) -> TensorFacts:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    return TensorFacts(
        dtype=str(array.dtype), shape=array.shape, digest=hashlib.blake2b(data, digest_size=16).hexdigest()
    )


def _seal(key: bytes, job: JobRef, report: bytes) -> bytes:
    digest = hashlib.blake2b(b"%d:" % job.id, key=key, digest_size=16)
    digest.update(report)
    return digest.hexdigest().encode()


def _refusal(what: str) -> str:
    return f"no stage of this server wrote {what} for this job: send the request to {IMAGE_MODEL}"
