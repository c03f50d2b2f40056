"""Maps the names of the VAE in the original layout of Stable Diffusion to canonical names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runtime.checkpoints.parameter_names import NUMBER

_TOP = {
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
    **{f"{half}.conv_in": f"{half}.conv_in" for half in ("encoder", "decoder")},
    **{f"{half}.norm_out": f"{half}.conv_norm_out" for half in ("encoder", "decoder")},
    **{f"{half}.conv_out": f"{half}.conv_out" for half in ("encoder", "decoder")},
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
# The present and the early names of diffusers, which some converters write into files of the original layout.
_LATER_ATTENTION = {
    **{part: part for part in ("group_norm", "to_q", "to_k", "to_v", "to_out.0")},
    **{"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"},
}
_RESNET = {
    **{part: part for part in ("norm1", "conv1", "norm2", "conv2", "conv_shortcut")},
    "nin_shortcut": "conv_shortcut",
}
_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block|attn)_([12])\.([\w.]+)")
_BLOCK = re.compile(rf"(encoder\.down|decoder\.up)\.({NUMBER})\.block\.({NUMBER})\.(\w+)")
_SAMPLER = re.compile(rf"(encoder\.down|decoder\.up)\.({NUMBER})\.(?:downsample|upsample)\.conv")
_LEVEL = re.compile(rf"first_stage_model\.decoder\.up\.({NUMBER})\.block\.0\.conv1\.weight")
_LATER = re.compile(rf"\.(?:{'|'.join(map(re.escape, _LATER_ATTENTION))}|conv_shortcut)\.(?:weight|bias)$")


def vae_levels(names: Iterable[str]) -> int:
    """The number of up blocks of the decoder. The original layout numbers them from the output to the latents."""
    return max((int(match[1]) + 1 for name in names if (match := _LEVEL.fullmatch(name))), default=0)


def is_later_name(name: str) -> bool:
    """Whether `vae_name` knows the name although the original code does not."""
    return _LATER.search(name) is not None


def vae_name(name: str, levels: int) -> str | None:
    """The canonical name of a name without prefix; None: unknown."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    if match := _MIDDLE.fullmatch(stem):
        half, what, number, part = match.groups()
        if what == "block" and part in _RESNET:
            return f"{half}.mid_block.resnets.{int(number) - 1}.{_RESNET[part]}.{kind}"
        attention = (_ATTENTION | _LATER_ATTENTION).get(part) if what == "attn" and number == "1" else None
        return f"{half}.mid_block.attentions.0.{attention}.{kind}" if attention else None
    if (match := _BLOCK.fullmatch(stem)) and match[4] in _RESNET:
        return f"{_level(match[1], int(match[2]), levels)}.resnets.{match[3]}.{_RESNET[match[4]]}.{kind}"
    if match := _SAMPLER.fullmatch(stem):
        sampler = "downsamplers" if match[1] == "encoder.down" else "upsamplers"
        return f"{_level(match[1], int(match[2]), levels)}.{sampler}.0.conv.{kind}"
    return None


def _level(half: str, number: int, levels: int) -> str:
    return f"encoder.down_blocks.{number}" if half == "encoder.down" else f"decoder.up_blocks.{levels - 1 - number}"
