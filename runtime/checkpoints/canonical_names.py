"""Canonical parameter names: those of diffusers' modules, and `text_model.…` in both text encoders.

Published files differ in two ways. transformers 5 saves `CLIPTextModel` and `CLIPVisionModel` without their prefixes
`text_model.` and `vision_model.`. The VAE files of SD 1.5 name the attention layers `query, key, value, proj_attn`.
"""

from __future__ import annotations

import re

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"\.(query|key|value|proj_attn)\.(weight|bias)$")
_TEXT_ROOTS = ("embeddings.", "encoder.", "final_layer_norm.")
# The safety checker's image encoder is a module within a module of the same name.
_VISION, _NESTED_VISION = "vision_model.", "vision_model.vision_model."
_VISION_ROOTS = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")


def canonical_name(component: str, name: str) -> str:
    """The canonical name of a tensor in a file of the component."""
    if component.startswith("text_encoder"):
        return f"text_model.{name}" if name.startswith(_TEXT_ROOTS) else name
    if component in ("image_encoder", "safety_checker"):
        if name.startswith(_VISION_ROOTS):
            return _VISION + name
        return _VISION + name.removeprefix(_NESTED_VISION) if name.startswith(_NESTED_VISION) else name
    if component == "vae":
        return _OLD_NAME.sub(lambda match: f".{_OLD_ATTENTION[match[1]]}.{match[2]}", name)
    return name
