"""The names of a UNet's layers in Stability AI's code (`input_blocks.4.1.…`), which Kohya's SDXL LoRAs use."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runtime.checkpoints.original_unet_names import RESNET, TOP

_SINGLE = {name: original for original, name in TOP.items()}
_RESNET = {name: original for original, name in RESNET.items()}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def stability_names(modules: Iterable[str]) -> dict[str, str]:
    """diffusers' module name -> Stability AI's, for those modules of a UNet that have one."""
    known = set(modules)
    entries = 1 + len({name.split(".")[3] for name in known if name.startswith("down_blocks.0.resnets.")})
    with_attention = {name.partition(".attentions.")[0] for name in known if ".attentions." in name}
    names = {}
    for name in known:
        if name in _SINGLE:
            names[name] = _SINGLE[name]
        elif match := _BLOCK.fullmatch(name):
            side, block, part, index, inner = match.groups()
            before = int(block) * entries
            has_attention = f"{side}_blocks.{block}" in with_attention
            names[name] = f"{_position(side, part, before, int(index), entries, has_attention)}.{_inner(part, inner)}"
        elif match := _MIDDLE.fullmatch(name):
            part, index, inner = match.groups()
            names[name] = f"middle_block.{1 if part == 'attentions' else 2 * int(index)}.{_inner(part, inner)}"
    return names


def _position(side: str, part: str, before: int, index: int, entries: int, has_attention: bool) -> str:
    """The position of a block's part in Stability AI's flat lists `input_blocks` and `output_blocks`.

    Each block fills `entries` list entries; `before` is the number of entries of the blocks before it.
    `input_blocks` begins with conv_in, and each downsampler there is one entry.
    """
    if part == "downsamplers":
        return f"input_blocks.{before + entries}.0"
    if part == "upsamplers":
        return f"output_blocks.{before + entries - 1}.{2 if has_attention else 1}"
    entry = f"input_blocks.{before + 1 + index}" if side == "down" else f"output_blocks.{before + index}"
    return f"{entry}.{1 if part == 'attentions' else 0}"


def _inner(part: str, inner: str) -> str:
    if part == "resnets":
        return _RESNET.get(inner, inner)
    return "op" if part == "downsamplers" else inner
