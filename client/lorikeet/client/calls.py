"""Messages to inference calls of the public Triton models, and their outputs to messages. No network."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lorikeet.client.result import Latents, Result
from lorikeet.protocol import tensors
from lorikeet.protocol.errors import INTERNAL, make_error
from lorikeet.protocol.parameters import JobParameters, Value
from lorikeet.schema import (
    ImageToImageInput,
    ImageToImageOutput,
    JobRequest,
    JobStatus,
    Model,
    describe_errors,
)

Arrays = dict[str, npt.NDArray[Any]]
Message = TypeVar("Message", bound=Model)


@dataclass(frozen=True)
class InferCall:
    """One inference request: input arrays by name, names of the requested outputs, request id and parameters."""

    model: str
    inputs: Arrays
    outputs: tuple[str, ...]
    request_id: str = ""
    parameters: dict[str, Value] = field(default_factory=dict)


def image_call(request: ImageToImageInput, files: list[bytes], request_id: str, parameters: JobParameters) -> InferCall:
    """REQUEST [1], and FILES [n] unless `files` is empty. The debug outputs are requested where `request` sets them."""
    inputs = {tensors.REQUEST: _bytes_array([request.to_json().encode()])}
    if files:
        inputs[tensors.FILES] = _bytes_array(files)
    outputs = [tensors.RESPONSE, tensors.IMAGES]
    if request.debug_latents:
        outputs.append(tensors.DEBUG_LATENTS)
    if request.debug_per_pass_latents:
        outputs.append(tensors.DEBUG_PER_PASS_LATENTS)
    return InferCall(tensors.IMAGE_MODEL, inputs, tuple(outputs), request_id, parameters.to_triton())


def read_result(request_id: str, outputs: Arrays) -> Result:
    """The result in the outputs of an `image_call`. Raises LorikeetError (INTERNAL) when RESPONSE is not valid."""
    return Result(
        request_id=request_id,
        response=_read_response(ImageToImageOutput, outputs),
        files=[bytes(content) for content in outputs[tensors.IMAGES].flat],
        latents=_latents(outputs, tensors.DEBUG_LATENTS),
        per_pass_latents=_latents(outputs, tensors.DEBUG_PER_PASS_LATENTS),
    )


def job_call(request: JobRequest) -> InferCall:
    """The call of the model `jobs`: REQUEST [1] to RESPONSE [1]."""
    inputs = {tensors.REQUEST: _bytes_array([request.to_json().encode()])}
    return InferCall(tensors.JOBS_MODEL, inputs, (tensors.RESPONSE,))


def read_status(outputs: Arrays) -> JobStatus:
    """The status in the outputs of a `job_call`. Raises LorikeetError (INTERNAL) when RESPONSE is not valid."""
    return _read_response(JobStatus, outputs)


def _read_response(message: type[Message], outputs: Arrays) -> Message:
    try:
        return message.model_validate_json(outputs[tensors.RESPONSE].item())
    except ValidationError as error:
        reason = f"the server's {tensors.RESPONSE} is not valid: {describe_errors(error)}"
        raise make_error(reason, INTERNAL) from error


def _bytes_array(contents: list[bytes]) -> npt.NDArray[np.object_]:
    return np.array(contents, dtype=np.object_)


def _latents(outputs: Arrays, name: str) -> Latents | None:
    array = outputs.get(name)
    return array if array is not None and array.size else None
