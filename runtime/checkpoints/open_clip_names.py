"""Maps the names of OpenCLIP to canonical names: its text encoder (SD 2.x, SDXL), and its image encoder."""

from __future__ import annotations

import re

from runtime.checkpoints.parameter_names import NUMBER

_TOP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_VISION_TOP = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCK = re.compile(rf"transformer\.resblocks\.({NUMBER})\.(?:(.+)\.(weight|bias)|attn\.(in_proj_(?:weight|bias)))")


def open_clip_name(name: str) -> str | None:
    """The canonical name of a name of the text encoder without prefix; None: unknown.

    `….self_attn.in_proj_weight` and `….in_proj_bias` contain query, key and value, in this order.
    """
    place = _TOP.get(name) or _in_layer(name)
    return None if place is None else f"text_model.{place}"


def open_clip_vision_name(name: str) -> str | None:
    """As `open_clip_name`, of the image encoder."""
    place = _VISION_TOP.get(name) or _in_layer(name)
    return None if place is None else f"vision_model.{place}"


def _in_layer(name: str) -> str | None:
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    layer, part, kind, fused = match.groups()
    place = f"encoder.layers.{int(layer)}"
    if fused:
        return f"{place}.self_attn.{fused}"
    return f"{place}.{_LAYER[part]}.{kind}" if part in _LAYER else None
