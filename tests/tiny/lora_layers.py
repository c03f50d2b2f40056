"""Which layers a tiny LoRA changes, and the low-rank pair of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

UNET_LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
UNET_OTHER = (
    "conv_in",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "mid_block.attentions.0.proj_in",
    "up_blocks.1.resnets.0.conv_shortcut",
)
UNET = UNET_LINEAR + UNET_OTHER
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True)
class Layer:
    """A layer of a checkpoint: its name there, and its weight's shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_convolution(self) -> bool:
        return len(self.shape) == 4


def layers(weights: Path, targets: tuple[str, ...]) -> Iterator[Layer]:
    """The layers in the safetensors file `weights` whose name ends with, or is, one of `targets`."""
    with safe_open(weights, "pt") as file:
        for key in sorted(file.keys()):
            name = key.removesuffix(".weight")
            if name != key and f".{name}".endswith(tuple(f".{target}" for target in targets)):
                yield Layer(name, tuple(file.get_slice(key).get_shape()))


def low_rank(layer: Layer, rank: int, strength: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair (down, up) whose product has `strength` times the spread of an untrained weight.

    For a convolution `down` has the layer's kernel and `up` is 1x1, as LoCon and PEFT have it.
    """
    out, inputs, *kernel = layer.shape
    down = torch.randn((rank, inputs, *kernel), generator=generator)
    up = torch.randn((out, rank, *(1 for _ in kernel)), generator=generator)
    fan_in = down[0].numel()
    return down * fan_in**-0.5, up * strength * rank**-0.5
