"""Maps the names of the OpenCLIP text encoder (SD 2.x, SDXL) to canonical names."""

from __future__ import annotations

import re

from runtime.checkpoints.parameter_names import NUMBER

_TOP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
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
    """The canonical name of a name without prefix; None: unknown.

    `….self_attn.in_proj_weight` and `….in_proj_bias` contain query, key and value, in this order.
    """
    if name in _TOP:
        return f"text_model.{_TOP[name]}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    layer, part, kind, fused = match.groups()
    place = f"text_model.encoder.layers.{int(layer)}"
    if fused:
        return f"{place}.self_attn.{fused}"
    return f"{place}.{_LAYER[part]}.{kind}" if part in _LAYER else None
