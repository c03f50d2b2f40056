"""Detects that a file was made for another model than the checkpoint, or that it is no LoRA, from its header alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.other_models import other_model
from runtime.files.safetensors_header import TensorInfo
from runtime.lora.key_suffixes import MAX_KEY
from runtime.lora.kinds.lora_kind import Shape
from runtime.lora.layer_names import LayerNames, is_for

# The width of the text embeddings that cross-attention reads.
_MODELS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
# Parts of the keys, with underscores for dots, that LoRAs of other networks have.
_OTHER_NETWORKS = {
    "motion_modules": "AnimateDiff",
    "lora_prior_": "Stable Cascade",
    "img_mlp_net": "Qwen-Image",
    "cross_attn_k": "Wan",
    "attention_to_q": "Z-Image",
}
# The keys of embeddings alone.
_EMBEDDING = ({"emb_params"}, {"emp_params"}, {"clip_l", "clip_g"}, {"string_to_param.*"})
# Parts of the keys of kinds that are not applied: LyCORIS' modules, PEFT's OFT, and HCP-Diffusion's own names.
_UNSUPPORTED = {
    ".___.": "in the format of HCP-Diffusion",
    ".oft_blocks": "an OFT or BOFT",
    ".oft_R": "an OFT or BOFT",
    ".a1.weight": "a GLoRA",
    ".lambda_layer": "a T-LoRA",
    ".on_input": "an (IA)³",
}
_USE_ANOTHER = "use a LoRA made for Stable Diffusion 1.x, 2.x or XL"


def other_architecture(keys: Collection[str]) -> str | None:
    """A message for the client when these keys are of a LoRA for another network than Stable Diffusion's UNet."""
    text = "\n".join(keys)  # no mark has a line break, so a search of all keys at once finds the same
    underscored = text.replace(".", "_")
    for mark, model in _OTHER_NETWORKS.items():
        if mark in underscored:
            return f"this LoRA was made for {model}; {_USE_ANOTHER}"
    known = other_model([text])
    return f"this LoRA was made for {known}; {_USE_ANOTHER}" if known else None


def other_text_width(changes: Iterable[tuple[str, Shape]], components: Sequence[Component]) -> str | None:
    """A message for the client when a LoRA's cross-attention has another text width than the checkpoint's.

    `changes`: the stem of each layer's keys and the shape [out, in, ...] of its change.
    """
    own = {width for part in components for name, shape in part.shapes.items() if (width := _text_width(name, shape))}
    for stem, shape in changes:
        width = _text_width(stem, shape)
        if width and own and width not in own:
            return (
                f"this LoRA was made for {_model(width)}, but the checkpoint is {_model(min(own))}; "
                "use a LoRA made for the checkpoint's model"
            )
    return None


def other_text_encoder(keys: Iterable[str], components: Sequence[Component]) -> str | None:
    """A message for the client when keys change a second text encoder and the checkpoint has one, not two."""
    names = {component.name for component in components}
    if "text_encoder" in names and "text_encoder_2" not in names and any(is_for("text_encoder_2", key) for key in keys):
        return (
            "this LoRA was made for two text encoders, as in SDXL, but the checkpoint has one; "
            "use a LoRA made for the checkpoint's model"
        )
    return None


def no_lora(
    infos: Mapping[str, TensorInfo], plain: Iterable[str], components: Sequence[Component], names: LayerNames
) -> str | None:
    """A message for the client when the tensors of these names and shapes are known to be no LoRA.

    `plain`: the keys without a LoRA suffix.
    """
    if any(keys <= infos.keys() for keys in _EMBEDDING):
        return "this file is a textual inversion embedding, not a LoRA; name it in the field embeddings"
    text = "\n".join(infos)
    for mark, kind in _UNSUPPORTED.items():
        if mark in text:
            return f"this file is {kind}, which is not supported; use a LoRA, LoHa or LoKr"
    own = {component.name: component.shapes for component in components}
    for key in plain:
        is_weight = key.endswith(".weight") and len(key) <= MAX_KEY
        targets = names.find(key.removesuffix(".weight")) if is_weight else ()
        if any(own[target.component].get(target.parameter) == infos[key].shape for target in targets):
            return "this file has whole weights, not a LoRA; give a checkpoint in model_name, a UNet in unet_name"
    return None


def is_key_projection(name: str) -> bool:
    """Whether a layer is a cross-attention's key projection: its input is as wide as the text embeddings."""
    return "attn2" in name and name.removesuffix(".weight").endswith("to_k")


def _text_width(name: str, shape: Shape) -> int | None:
    """The input width of a cross-attention's key projection; None for other layers."""
    return shape[1] if is_key_projection(name) and len(shape) > 1 else None


def _model(width: int) -> str:
    return f"{_MODELS.get(width, 'another model')} (text width {width})"
