"""Detects that a LoRA was made for another Stable Diffusion model than the checkpoint, from its layers' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.checkpoints.checkpoint import Component
from runtime.lora.kinds.lora_kind import Shape

# The width of the text embeddings that cross-attention reads.
_MODELS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
_SECOND_ENCODER = ("lora_te2_", "text_encoder_2.")


def made_for_other_model(changes: Iterable[tuple[str, Shape]], components: Sequence[Component]) -> str | None:
    """A message for the client when the LoRA was made for another model than these components' checkpoint, else None.

    `changes`: the stem of each layer's keys and the shape [out, in, ...] of its change.
    """
    found = list(changes)
    own = {width for part in components for name, shape in part.shapes.items() if (width := _text_width(name, shape))}
    for stem, shape in found:
        width = _text_width(stem, shape)
        if width and own and width not in own:
            return (
                f"this LoRA was made for {_model(width)}, but the checkpoint is {_model(min(own))}; "
                "use a LoRA made for the checkpoint's model"
            )
    if len(components) == 2 and any(stem.startswith(_SECOND_ENCODER) for stem, _ in found):
        return (
            "this LoRA was made for two text encoders, as in SDXL, but the checkpoint has one; "
            "use a LoRA made for the checkpoint's model"
        )
    return None


def _text_width(name: str, shape: Shape) -> int | None:
    """The input width of a cross-attention's key projection; None for other layers."""
    is_key_projection = "attn2" in name and name.removesuffix(".weight").endswith("to_k")
    return shape[1] if is_key_projection and len(shape) > 1 else None


def _model(width: int) -> str:
    return f"{_MODELS.get(width, 'another model')} (text width {width})"
