"""The parameters that the networks of Stable Diffusion can have, by canonical name.

Files contain other tensors too: leftovers of training and merging, marks of their makers. The patterns separate these
from parameters. They do not know the numbers of blocks and layers: those must fit the configuration, which the engine
checks.
"""

from __future__ import annotations

import re

# A number as the libraries write it: ASCII digits without leading zeros, so that no two names mean one block.
NUMBER = r"(?:0|[1-9][0-9]{0,2})"
_NORMS_AND_CONVS = "norm1|conv1|norm2|conv2|conv_shortcut"
_TRANSFORMER = (
    rf"attentions\.{NUMBER}\.(?:(?:norm|proj_in|proj_out)\.(?:weight|bias)|transformer_blocks\.{NUMBER}\.(?:"
    r"attn[12]\.to_[qkv]\.weight|(?:norm[123]|attn[12]\.to_out\.0|ff\.net\.(?:0\.proj|2))\.(?:weight|bias)))"
)
_RESNET = rf"resnets\.{NUMBER}\.(?:{_NORMS_AND_CONVS}|time_emb_proj)\.(?:weight|bias)"
_VAE_RESNET = rf"resnets\.{NUMBER}\.(?:{_NORMS_AND_CONVS})\.(?:weight|bias)"
_SAMPLER = r"(?:down|up)samplers\.0\.conv\.(?:weight|bias)"
_UNET = re.compile(
    r"time_embedding\.cond_proj\.weight"
    r"|(?:conv_in|conv_norm_out|conv_out|(?:time|add)_embedding\.linear_[12])\.(?:weight|bias)"
    rf"|(?:(?:down|up)_blocks\.{NUMBER}|mid_block)\.(?:{_RESNET}|{_TRANSFORMER}|{_SAMPLER})"
)
_CONTROLNET = re.compile(
    r"(?:conv_in|(?:time|add)_embedding\.linear_[12])\.(?:weight|bias)"
    rf"|(?:down_blocks\.{NUMBER}|mid_block)\.(?:{_RESNET}|{_TRANSFORMER}|{_SAMPLER})"
    rf"|controlnet_(?:cond_embedding\.(?:conv_in|blocks\.{NUMBER}|conv_out)|down_blocks\.{NUMBER}|mid_block)"
    r"\.(?:weight|bias)"
)
_VAE = re.compile(
    r"(?:quant_conv|post_quant_conv)\.(?:weight|bias)"
    r"|(?:encoder|decoder)\.(?:(?:conv_in|conv_norm_out|conv_out)\.(?:weight|bias)"
    rf"|(?:down|up)_blocks\.{NUMBER}\.(?:{_VAE_RESNET}|{_SAMPLER})"
    rf"|mid_block\.(?:{_VAE_RESNET}|attentions\.0\.(?:group_norm|to_[qkv]|to_out\.0)\.(?:weight|bias)))"
)
_CLIP_LAYER = (
    rf"encoder\.layers\.{NUMBER}\.(?:self_attn\.(?:[qkv]|out)_proj|layer_norm[12]|mlp\.fc[12])\.(?:weight|bias)"
)
_TEXT_MODEL = (
    r"text_model\.(?:embeddings\.(?:token|position)_embedding\.weight|final_layer_norm\.(?:weight|bias)"
    rf"|{_CLIP_LAYER})"
)
_VISION_MODEL = (
    r"vision_model\.(?:embeddings\.(?:class_embedding|(?:patch|position)_embedding\.weight)"
    rf"|(?:pre_layrnorm|post_layernorm)\.(?:weight|bias)|{_CLIP_LAYER})|visual_projection\.weight"
)
_PARAMETERS = {
    "unet": _UNET,
    "controlnet": _CONTROLNET,
    "vae": _VAE,
    "text_encoder": re.compile(_TEXT_MODEL),
    "text_encoder_2": re.compile(rf"{_TEXT_MODEL}|text_projection\.weight"),
    "image_encoder": re.compile(_VISION_MODEL),
    "safety_checker": re.compile(rf"{_VISION_MODEL}|(?:concept|special_care)_embeds(?:_weights)?"),
}


def is_parameter(component: str, name: str) -> bool:
    """Whether a network of this role can have the parameter. A role without a pattern has every name."""
    pattern = _PARAMETERS.get(component)
    return pattern is None or pattern.fullmatch(name) is not None
