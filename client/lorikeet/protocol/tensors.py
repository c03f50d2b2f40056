"""Messages to tensors and back, for the public Triton models. Pure functions; no network."""

import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lorikeet.client.result import Latents, Result
from lorikeet.protocol.errors import make_error
from lorikeet.schema import (
    ImageToImageInput,
    ImageToImageOutput,
    JobRequest,
    JobStatus,
    Model,
    describe_errors,
)

IMAGE_MODEL = "lora_image_to_image"
JOBS_MODEL = "jobs"

Tensors = dict[str, npt.NDArray[Any]]
Message = TypeVar("Message", bound=Model)


@dataclass(frozen=True)
class InferCall:
    """One inference request: BYTES inputs by name, the outputs to ask for, request id and parameters."""

    model: str
    inputs: Tensors
    outputs: tuple[str, ...]
    request_id: str = ""
    parameters: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class JobParameters:
    """How the server is to treat a request, besides its input. `priority` 1 goes before 2 (normal), and 3 behind it;
    after `deadline` seconds the server lets go of it."""

    request_id: str
    job_token: str
    priority: int | None = None
    deadline: float | None = None

    @property
    def parameters(self) -> dict[str, str | int]:
        """As Triton request parameters, which hold no fractions: milliseconds, rounded up."""
        found: dict[str, str | int] = {"job_token": self.job_token}
        if self.priority is not None:
            found["job_priority"] = self.priority
        if self.deadline is not None:
            found["job_timeout_ms"] = max(1, math.ceil(self.deadline * 1000))
        return found


def image_call(request: ImageToImageInput, files: list[bytes], terms: JobParameters) -> InferCall:
    """REQUEST [1] and, if there are any, FILES [n]; the debug outputs only where the request wants them."""
    inputs = {"REQUEST": _bytes_tensor([request.to_json().encode()])}
    if files:
        inputs["FILES"] = _bytes_tensor(files)
    outputs = ["RESPONSE", "IMAGES"]
    if request.debug_latents:
        outputs.append("DEBUG_LATENTS")
    if request.debug_per_pass_latents:
        outputs.append("DEBUG_PER_PASS_LATENTS")
    return InferCall(IMAGE_MODEL, inputs, tuple(outputs), terms.request_id, terms.parameters)


def read_result(request_id: str, tensors: Tensors) -> Result:
    """The result in the outputs of an `image_call`. Raises LorikeetError (INTERNAL) when they do not fit."""
    return Result(
        request_id=request_id,
        response=_read_response(ImageToImageOutput, tensors),
        files=[bytes(content) for content in tensors["IMAGES"].flat],
        latents=_latents(tensors, "DEBUG_LATENTS"),
        per_pass_latents=_latents(tensors, "DEBUG_PER_PASS_LATENTS"),
    )


def job_call(request: JobRequest) -> InferCall:
    """The call of the `jobs` model: REQUEST [1] to RESPONSE [1]."""
    return InferCall(JOBS_MODEL, {"REQUEST": _bytes_tensor([request.to_json().encode()])}, ("RESPONSE",))


def read_status(tensors: Tensors) -> JobStatus:
    """The status in the outputs of a `job_call`. Raises LorikeetError (INTERNAL) when they do not fit."""
    return _read_response(JobStatus, tensors)


def _read_response(message: type[Message], tensors: Tensors) -> Message:
    try:
        return message.model_validate_json(tensors["RESPONSE"].item())
    except ValidationError as error:
        reason = f"the server's RESPONSE does not fit: {describe_errors(error)}"
        raise make_error(reason, "INTERNAL") from error


def _bytes_tensor(contents: list[bytes]) -> npt.NDArray[np.object_]:
    tensor = np.empty(len(contents), dtype=np.object_)
    tensor[:] = contents
    return tensor


def _latents(tensors: Tensors, name: str) -> Latents | None:
    tensor = tensors.get(name)
    return tensor if tensor is not None and tensor.size else None
