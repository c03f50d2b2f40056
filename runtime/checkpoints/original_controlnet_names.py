"""Maps the names of a ControlNet in the original layout (`control_model.…`) to canonical names."""

from __future__ import annotations

import re

from runtime.checkpoints.original_unet_names import BlockStarts, unet_name
from runtime.checkpoints.parameter_names import NUMBER

CONTROLNET_FIRST = "input_hint_block.0.weight"

_ZERO_CONVOLUTION = re.compile(rf"zero_convs\.({NUMBER})\.0\.(weight|bias)")
_MIDDLE = re.compile(r"middle_block_out\.0\.(weight|bias)")
_HINT = re.compile(rf"input_hint_block\.({NUMBER})\.(weight|bias)")
_LAST_HINT = 14  # the hint block is a sequence of 8 convolutions, each but the last followed by SiLU


def controlnet_name(name: str, starts: BlockStarts) -> str | None:
    """The canonical name of a name without prefix; None: unknown. The network's first half is named as a UNet's."""
    if match := _ZERO_CONVOLUTION.fullmatch(name):
        return f"controlnet_down_blocks.{match[1]}.{match[2]}"
    if match := _MIDDLE.fullmatch(name):
        return f"controlnet_mid_block.{match[1]}"
    if match := _HINT.fullmatch(name):
        return _hint_name(int(match[1]), match[2])
    return unet_name(name, starts)


def _hint_name(place: int, kind: str) -> str | None:
    if place % 2 or place > _LAST_HINT:
        return None
    if place == 0:
        return f"controlnet_cond_embedding.conv_in.{kind}"
    if place == _LAST_HINT:
        return f"controlnet_cond_embedding.conv_out.{kind}"
    return f"controlnet_cond_embedding.blocks.{place // 2 - 1}.{kind}"
