"""Which models a LoRA that does not fit was made for, told from the text that its cross-attention takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.checkpoints.checkpoint import Component
from runtime.lora.kinds.kind import Shape

_MODELS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
_SECOND_ENCODER = ("lora_te2_", "text_encoder_2.")


def origin(changes: Iterable[tuple[str, Shape]], components: Sequence[Component]) -> str:
    """The beginning of a sentence: which models a file was made for, when they are others than these components'.

    `changes`: the stems of a file's keys and the shapes [out, in, ...] of what they change. Empty when nothing tells.
    """
    found = list(changes)
    own = {width for part in components for name, shape in part.shapes.items() if (width := _text_width(name, shape))}
    for stem, shape in found:
        width = _text_width(stem, shape)
        if width and own and width not in own:
            return f"made for {_model(width)}; this checkpoint is for {_model(min(own))}: "
    if len(components) == 2 and any(stem.startswith(_SECOND_ENCODER) for stem, _ in found):
        return "made for two text encoders, as SDXL has; this checkpoint has one: "
    return ""


def _text_width(name: str, shape: Shape) -> int | None:
    is_key = "attn2" in name and name.removesuffix(".weight").endswith("to_k")
    return shape[1] if is_key and len(shape) > 1 else None


def _model(width: int) -> str:
    return f"{_MODELS.get(width, 'a model')} (text of width {width})"
