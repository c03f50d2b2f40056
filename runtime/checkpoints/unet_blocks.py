"""The blocks of a UNet, read from the names of its tensors.

Distilled models have fewer transformer blocks than SDXL, in other numbers on the way up, and no attention in the middle
(SSD-1B, Segmind Vega); or fewer ResNet layers and no mid block (KOALA, BK-SDM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.component_shapes import ComponentShapes

Depth = int | list[int]

# Transformer blocks of the down blocks of SD 1.x and 2.x, and of SDXL. Each has two ResNet layers in a block.
_FULL_DEPTHS = ((1, 1, 1, 0), (0, 2, 10))
_FULL_LAYERS = 2
_MIDDLE_ATTENTION = "mid_block.attentions.0.norm.weight"


@dataclass(frozen=True)
class Block:
    """A block: its name, its number of ResNet layers, and the transformer blocks of each of its attention layers."""

    place: str
    layers: int
    depths: tuple[int, ...]

    @property
    def depth(self) -> Depth:
        """One number if all attention layers have it, as in the published configurations; 0 without attention."""
        numbers = set(self.depths)
        return list(self.depths) if len(numbers) > 1 else next(iter(numbers), 0)


@dataclass(frozen=True)
class UNetBlocks:
    """The blocks in the order in which they run."""

    down: tuple[Block, ...]
    mid: Block
    up: tuple[Block, ...]


def read_unet_blocks(shapes: ComponentShapes) -> UNetBlocks:
    """Raises CheckpointError: blocks are missing, or do not belong together."""
    down, up = (_blocks(shapes, f"{direction}_blocks") for direction in ("down", "up"))
    if not down or len(down) != len(up):
        raise CheckpointError(
            f"its unet has {len(down)} down blocks and {len(up)} up blocks; expected equal numbers from 1"
        )
    for before, after in zip(down, reversed(up), strict=True):
        _check_pair(before, after)
    return UNetBlocks(down, _block(shapes, "mid_block"), up)


def read_controlnet_blocks(shapes: ComponentShapes) -> UNetBlocks:
    """The blocks of a ControlNet, which is the first half of a UNet. Raises CheckpointError: blocks are missing."""
    down, mid = _blocks(shapes, "down_blocks"), _block(shapes, "mid_block")
    for block in down:
        _check_attention(block, "controlnet")
    if not down or not mid.layers:
        raise CheckpointError("its controlnet is incomplete: expected down_blocks and mid_block")
    if mid.layers > 1 and not mid.depths:
        raise CheckpointError(f"its controlnet is incomplete: {_MIDDLE_ATTENTION} is missing")
    return UNetBlocks(down, mid, ())


def controlnet_block_config(blocks: UNetBlocks) -> dict[str, Any]:
    """The fields of a ControlNetModel's configuration that describe its blocks. Raises CheckpointError."""
    layers = {block.layers for block in blocks.down}
    if len(layers) > 1:
        raise CheckpointError(f"its down_blocks have {sorted(layers)} ResNet layers; expected one number for all")
    return {
        "layers_per_block": layers.pop(),
        "down_block_types": _down_types(blocks),
        "mid_block_type": "UNetMidBlock2DCrossAttn" if blocks.mid.depths else "UNetMidBlock2D",
        "transformer_layers_per_block": _down_depths(blocks),
    }


def block_config(blocks: UNetBlocks) -> dict[str, Any]:
    """The fields of a UNet2DConditionModel's configuration that describe its blocks. Raises CheckpointError."""
    down = _down_depths(blocks)
    mirrored = down[::-1]
    up = [block.depth if block.depths else other for block, other in zip(blocks.up, mirrored, strict=True)]
    layers = [block.layers for block in blocks.down]
    return {
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "down_block_types": _down_types(blocks),
        "mid_block_type": _mid_type(blocks),
        "up_block_types": [f"{'CrossAttn' if block.depths else ''}UpBlock2D" for block in blocks.up],
        "transformer_layers_per_block": down,
        "reverse_transformer_layers_per_block": None if up == mirrored else up,
    }


def _down_types(blocks: UNetBlocks) -> list[str]:
    return [f"{'CrossAttn' if block.depths else ''}DownBlock2D" for block in blocks.down]


def _down_depths(blocks: UNetBlocks) -> list[Depth]:
    """`transformer_layers_per_block` of the down blocks; 1 where there are none."""
    depths = [block.depth if block.depths else 1 for block in blocks.down]
    return [*depths[:-1], _last_depth(blocks)]


def _blocks(shapes: ComponentShapes, places: str) -> tuple[Block, ...]:
    number = shapes.count(f"{places}.{{}}.resnets.0.conv1.weight")
    return tuple(_block(shapes, f"{places}.{index}") for index in range(number))


def _block(shapes: ComponentShapes, place: str) -> Block:
    attentions = shapes.count(f"{place}.attentions.{{}}.norm.weight")
    depths = tuple(shapes.end(f"{place}.attentions.{index}.transformer_blocks.") for index in range(attentions))
    return Block(place, shapes.count(f"{place}.resnets.{{}}.conv1.weight"), depths)


def _check_pair(down: Block, up: Block) -> None:
    """The up block continues with what its down block computed: it has one layer more, and attention where that has."""
    for block in (down, up):
        _check_attention(block, "unet")
    if up.layers != down.layers + 1:
        raise CheckpointError(
            f"its unet is incomplete: {up.place} has {up.layers} ResNet layers; expected {down.layers + 1}, one more "
            f"than {down.place}"
        )
    if bool(down.depths) != bool(up.depths):
        without, other = (down, up) if up.depths else (up, down)
        raise CheckpointError(
            f"its unet is incomplete: {without.place} has no attention layers; expected some, as in {other.place}"
        )


def _check_attention(block: Block, network: str) -> None:
    if len(block.depths) not in (0, block.layers):
        raise CheckpointError(
            f"its {network} is incomplete: {block.place} has {block.layers} ResNet layers and {len(block.depths)} "
            "attention layers; expected equal numbers or no attention layer"
        )


def _last_depth(blocks: UNetBlocks) -> Depth:
    """The last number of `transformer_layers_per_block`: diffusers builds the last down block and the mid block by it.

    Raises CheckpointError when the two differ.
    """
    last, mid = blocks.down[-1], blocks.mid
    if not last.depths:
        return mid.depths[0] if mid.depths else 1
    if mid.depths and mid.depths[0] != last.depths[0]:
        raise CheckpointError(
            f"its unet has {mid.depths[0]} transformer blocks in mid_block and {last.depths[0]} in {last.place}, which "
            "is not supported: expected equal numbers as in SDXL, or a mid_block without attention as in SSD-1B"
        )
    return last.depth


def _mid_type(blocks: UNetBlocks) -> str | None:
    """The class of the mid block; None: there is none. Raises CheckpointError.

    A distilled model differs from SD and SDXL in other blocks too. When only the middle differs, it was lost.
    """
    if blocks.mid.depths:
        return "UNetMidBlock2DCrossAttn"
    is_full = tuple(block.depth for block in blocks.down) in _FULL_DEPTHS and all(
        block.layers == _FULL_LAYERS for block in blocks.down
    )
    if blocks.mid.layers > 1 or is_full:
        raise CheckpointError(f"its unet is incomplete: {_MIDDLE_ATTENTION} is missing")
    return "UNetMidBlock2D" if blocks.mid.layers else None
