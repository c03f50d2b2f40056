"""Maps the names of the UNet in the original layout of Stable Diffusion to canonical names."""

from __future__ import annotations

import re
from collections.abc import Iterable

TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d{1,3})\.(\d)\.(.+)")
_MIDDLE_BLOCK = re.compile(r"middle_block\.([012])\.(.+)")
_ATTENTION = re.compile(r"(norm|proj_in|proj_out|transformer_blocks\.\d{1,3}\..+)")
_DOWNSAMPLER = re.compile(r"input_blocks\.(\d{1,3})\.0\.op\.weight")
_USUAL_LAYERS = 2


def layers_per_block(names: Iterable[str]) -> int:
    """ResNet layers of each down block: the number of blocks before the first downsampler."""
    found = [int(match[1]) for name in names if (match := _DOWNSAMPLER.fullmatch(name))]
    return max(min(found) - 1, 1) if found else _USUAL_LAYERS


def unet_name(name: str, layers: int) -> str | None:
    """The canonical name of a name without prefix; None: unknown. `layers` is the number of layers of a down block.

    `input_blocks` numbers `conv_in`, then for each down block its layers and its downsampler. `output_blocks` numbers
    the layers of the up blocks, which have one layer more; the last layer of a block includes the upsampler.
    """
    stem, _, kind = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    if match := _MIDDLE_BLOCK.fullmatch(stem):
        return _layer(f"mid_block.{_MIDDLE[match[1]]}", match[2], kind)
    if not (match := _BLOCK.fullmatch(stem)):
        return None
    direction, number, position, rest = match[1], int(match[2]), match[3], match[4]
    level, index = divmod(number - (direction == "input"), layers + 1)
    block = f"{'down' if direction == 'input' else 'up'}_blocks.{level}"
    if direction == "input" and rest == "op":
        return f"{block}.downsamplers.0.conv.{kind}"
    if direction == "output" and rest == "conv":
        return f"{block}.upsamplers.0.conv.{kind}"
    part = {"0": "resnets", "1": "attentions"}.get(position)
    return _layer(f"{block}.{part}.{index}", rest, kind) if part else None


def _layer(place: str, rest: str, kind: str) -> str | None:
    if ".resnets." in place:
        return f"{place}.{RESNET[rest]}.{kind}" if rest in RESNET else None
    return f"{place}.{rest}.{kind}" if _ATTENTION.fullmatch(rest) else None
