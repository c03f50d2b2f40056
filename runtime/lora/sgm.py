"""The names of a UNet's layers in Stability's own code (`input_blocks.4.1.…`), which Kohya's SDXL LoRAs use."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runtime.checkpoints.original_unet_names import RESNET, TOP

_SINGLE = {name: original for original, name in TOP.items()}
_RESNET = {name: original for original, name in RESNET.items()}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def sgm_names(modules: Iterable[str]) -> dict[str, str]:
    """diffusers' module name -> Stability's, for those of a UNet's modules that have one."""
    known = set(modules)
    entries = 1 + len({name.split(".")[3] for name in known if name.startswith("down_blocks.0.resnets.")})
    attending = {name.partition(".attentions.")[0] for name in known if ".attentions." in name}
    names = {}
    for name in known:
        if name in _SINGLE:
            names[name] = _SINGLE[name]
        elif match := _BLOCK.fullmatch(name):
            side, block, part, index, inner = match.groups()
            before = int(block) * entries
            attends = f"{side}_blocks.{block}" in attending
            names[name] = f"{_place(side, part, before, int(index), entries, attends)}.{_inner(part, inner)}"
        elif match := _MIDDLE.fullmatch(name):
            part, index, inner = match.groups()
            names[name] = f"middle_block.{1 if part == 'attentions' else 2 * int(index)}.{_inner(part, inner)}"
    return names


def _place(side: str, part: str, before: int, index: int, entries: int, attends: bool) -> str:
    """Where a part of a block stands. There the blocks' layers are one list of `entries` a block; `before` counts
    those of the blocks before. Going down, the list begins with conv_in, and a sampler is an entry of its own."""
    if part == "downsamplers":
        return f"input_blocks.{before + entries}.0"
    if part == "upsamplers":
        return f"output_blocks.{before + entries - 1}.{2 if attends else 1}"
    entry = f"input_blocks.{before + 1 + index}" if side == "down" else f"output_blocks.{before + index}"
    return f"{entry}.{1 if part == 'attentions' else 0}"


def _inner(part: str, inner: str) -> str:
    if part == "resnets":
        return _RESNET.get(inner, inner)
    return "op" if part == "downsamplers" else inner
