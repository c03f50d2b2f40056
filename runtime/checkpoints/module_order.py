"""The order in which diffusers counts the modules of a UNet. No torch."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\d+")
_SIDES = ("down_blocks", "up_blocks", "mid_block")  # as diffusers registers them


def module_order(name: str) -> tuple[int, ...]:
    """A key to sort the names of modules in the blocks of a UNet by."""
    side = name.partition(".")[0]
    return (_SIDES.index(side), *map(int, _NUMBER.findall(name.removeprefix(side))))
