"""Recognizes the relatives of ControlNets, which are other networks, by their tensor names, for error messages."""

from __future__ import annotations

from collections.abc import Collection

from runtime.checkpoints.other_models import other_file, other_model

_INSTEAD = "expected a ControlNet of its own weights"
_T2I_ADAPTER = f"a T2I-Adapter: {_INSTEAD}"
# By a part of a name that only this kind has.
_KINDS = {
    "lora_controlnet": f"a Control-LoRA (low-rank changes of a UNet): {_INSTEAD}",
    "lllite_": f"a ControlNet-LLLite of Kohya: {_INSTEAD}",
    "task_embedding": f"a ControlNet-Union (one network for several kinds of pictures): {_INSTEAD}",
    "control_add_embedding.": f"a ControlNet-Union (one network for several kinds of pictures): {_INSTEAD}",
    "control_type_embedding": f"a ControlNet-Union (one network for several kinds of pictures): {_INSTEAD}",
    "ctrl_to_base": f"a ControlNet-XS: {_INSTEAD}",
    "base_to_ctrl": f"a ControlNet-XS: {_INSTEAD}",
    "lora_up.": f"a ControlNet-LoRA (low-rank changes of a UNet): {_INSTEAD}",
    "lora_down.": f"a ControlNet-LoRA (low-rank changes of a UNet): {_INSTEAD}",
    "motion_modules": f"a SparseCtrl network for videos: {_INSTEAD}",
    "adapter.body.": _T2I_ADAPTER,
    "body.0.": _T2I_ADAPTER,
    "style_embedding": f"a style adapter of T2I-Adapter: {_INSTEAD}",
    "mid_convs.": f"a ControlNeXt: {_INSTEAD}",
    "brushnet_": f"a BrushNet: {_INSTEAD}",
    "image_proj.": "an IP-Adapter: give it in ip_adapter",
    "ip_adapter.": "an IP-Adapter: give it in ip_adapter",
}
_DIFFERENCE = "difference"  # a tensor by which other programs recognize the kind
# Of classes that a folder's config.json can name.
_CLASSES = {
    "ControlNetUnionModel": _KINDS["task_embedding"],
    "ControlNetXSAdapter": _KINDS["ctrl_to_base"],
    "UNetControlNetXSModel": _KINDS["ctrl_to_base"],
    "SparseControlNetModel": _KINDS["motion_modules"],
    "T2IAdapter": _T2I_ADAPTER,
    "FluxControlNetModel": "a ControlNet of Flux: expected one of SD 1.x, SD 2.x or SDXL",
    "SD3ControlNetModel": "a ControlNet of Stable Diffusion 3: expected one of SD 1.x, SD 2.x or SDXL",
}


def other_controlnet(names: Collection[str]) -> str | None:
    """A description of a file with tensors of these names that is no ControlNet of SD or SDXL; None: unknown."""
    if model := other_model(names):
        return f"it is made for {model}: expected a ControlNet of SD 1.x, SD 2.x or SDXL"
    if _DIFFERENCE in names:
        return (
            "it is a difference ControlNet (it holds differences to the UNet of SD 1.5): expected full weights, as in "
            "the file from which the differences were made"
        )
    found = next((what for mark, what in _KINDS.items() if any(mark in name for name in names)), None)
    return f"it is {found}" if found else None


def not_a_controlnet(names: Collection[str]) -> str:
    """The message for a file without the tensors of a ControlNet."""
    what = other_file(names)
    hint = f"it is {what}" if what else "expected tensors control_model.… or controlnet_cond_embedding.…"
    return f"it contains no ControlNet: {hint}"


def other_class(name: object) -> str | None:
    """A description of a network that config.json names, which is no ControlNet of SD or SDXL; None: unknown."""
    found = _CLASSES.get(name) if isinstance(name, str) else None
    return f"it is {found}" if found else None
