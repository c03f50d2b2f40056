"""The LoRAs of a request: their files found, and every key and shape checked against the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.float32 import is_finite_in_float32
from runtime.lora.known_loras import lora_summary
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_receipt import UnmatchedGroup
from runtime.lora.unmatched import DESCRIPTIONS
from runtime.plan import LoraPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext

_MAX_NAMED = 3


def resolve(request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint) -> tuple[LoraPlan, ...]:
    """Raises InvalidArgument that names the first LoRA that cannot be fetched or does not fit."""
    return tuple(_lora(request, index, context, checkpoint) for index in range(len(request.loras)))


def warnings(loras: Sequence[LoraPlan]) -> Iterator[str]:
    """For each LoRA, the keys that change nothing, and an alpha that is not in the file."""
    for lora in loras:
        receipt = lora.receipt
        if receipt.unmatched:
            kinds = "; ".join(map(_described, receipt.unmatched))
            count = sum(part.count for part in receipt.unmatched)
            yield f"{lora.field}: {count} of {receipt.tensors} tensors were not applied: {kinds}"
        if receipt.is_alpha_assumed:
            yield (
                f"{lora.field}: the file has no alpha, so alpha is the rank. PEFT saves alpha in adapter_config.json, "
                "which is not read: multiply the LoRA's scale by lora_alpha / r of that file"
            )


def _lora(request: ImageToImageInput, index: int, context: PrepareContext, checkpoint: Checkpoint) -> LoraPlan:
    field, lora = f"loras[{index}].path", request.loras[index]
    context.check_cancelled()
    try:
        stored = context.files.lora(field, lora.path, context.request_files)
        summary = lora_summary(stored, checkpoint.adaptable)
    except (LoraError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(field, str(error)) from error
    if not all(is_finite_in_float32(lora.scale * group.multiplier) for group in summary.receipt.groups):
        raise InvalidArgument(
            f"loras[{index}].scale", f"{lora.scale:g} times alpha / rank is not finite in float32: use a smaller scale"
        )
    return LoraPlan(
        field=field,
        path=stored.path,
        digest=stored.digest,
        fingerprint=stored.fingerprint,
        scale=lora.scale,
        components=summary.components,
        receipt=summary.receipt,
    )


def _described(part: UnmatchedGroup) -> str:
    """For example "bundled embeddings (4): a, b, c and 1 more"."""
    names = ", ".join(part.names[:_MAX_NAMED])
    left_out = part.count - _MAX_NAMED
    return f"{DESCRIPTIONS[part.kind]} ({part.count}): {names}" + (f" and {left_out} more" if left_out > 0 else "")
