"""The LoRAs of a request: their files found, and every key and shape checked against the checkpoint."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import FileChangedError
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.plan import LoraPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext


def resolve(request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint) -> tuple[LoraPlan, ...]:
    """Raises InvalidArgument that names the first LoRA that cannot be fetched or does not fit."""
    return tuple(_lora(request, index, context, checkpoint) for index in range(len(request.loras)))


def _lora(request: ImageToImageInput, index: int, context: PrepareContext, checkpoint: Checkpoint) -> LoraPlan:
    field, lora = f"loras[{index}].path", request.loras[index]
    context.check_cancelled()
    try:
        stored = context.files.lora(field, lora.path, context.request_files)
        layers = read_lora(stored.path, checkpoint.adaptable)
    except (LoraError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(field, str(error)) from error
    return LoraPlan(
        field=field,
        path=stored.path,
        digest=stored.digest,
        fingerprint=stored.fingerprint,
        scale=lora.scale,
        components=frozenset(layer.target.component for layer in layers),
    )
