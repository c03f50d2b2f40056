"""Maps the names of the UNet in the original layout of Stable Diffusion to canonical names."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.checkpoints.parameter_names import NUMBER

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
_BLOCK = re.compile(rf"(input|output)_blocks\.({NUMBER})\.([0-9])\.(.+)")
_MIDDLE_BLOCK = re.compile(r"middle_block\.([012])\.(.+)")
_ATTENTION = re.compile(rf"(norm|proj_in|proj_out|transformer_blocks\.{NUMBER}\..+)")
_SAMPLER = re.compile(rf"(?:input_blocks\.({NUMBER})\.0\.op|output_blocks\.({NUMBER})\.[12]\.conv)\.(?:weight|bias)")


@dataclass(frozen=True)
class BlockStarts:
    """The numbers in `input_blocks` and in `output_blocks` with which the down and the up blocks begin."""

    down: tuple[int, ...]
    up: tuple[int, ...]


def block_starts(names: Iterable[str]) -> BlockStarts:
    """The block starts of a UNet with these names, which have no prefix. A block ends with its sampler."""
    down, up = {1}, {0}  # input_blocks.0 is conv_in
    for name in names:
        if match := _SAMPLER.fullmatch(name):
            starts, number = (down, match[1]) if match[1] else (up, match[2])
            starts.add(int(number) + 1)
    return BlockStarts(tuple(sorted(down)), tuple(sorted(up)))


def unet_name(name: str, starts: BlockStarts) -> str | None:
    """The canonical name of a name without prefix; None: unknown.

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
    begins = starts.down if direction == "input" else starts.up
    level = bisect_right(begins, number) - 1
    if level < 0:
        return None
    block = f"{'down' if direction == 'input' else 'up'}_blocks.{level}"
    if direction == "input" and rest == "op":
        return f"{block}.downsamplers.0.conv.{kind}"
    if direction == "output" and rest == "conv":
        return f"{block}.upsamplers.0.conv.{kind}"
    part = {"0": "resnets", "1": "attentions"}.get(position)
    return _layer(f"{block}.{part}.{number - begins[level]}", rest, kind) if part else None


def _layer(place: str, rest: str, kind: str) -> str | None:
    if ".resnets." in place:
        return f"{place}.{RESNET[rest]}.{kind}" if rest in RESNET else None
    return f"{place}.{rest}.{kind}" if _ATTENTION.fullmatch(rest) else None
