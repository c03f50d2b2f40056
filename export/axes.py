"""Axes of a graph's tensors: sizes that the architecture fixes, and names of sizes that a call chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from runtime.artifacts.manifest import Axes


class DynamicAxis(NamedTuple):
    """An axis whose size a call chooses. `example`: its size while the network is traced.

    The heights and widths of latents are odd: then the traced UNet upsamples to the sizes of its skip connections. With
    even ones it would double each size, which is wrong for an odd size.
    """

    name: str
    example: int


TensorAxes = tuple[int | DynamicAxis, ...]
NamedAxes = Mapping[str, TensorAxes]

ROWS = DynamicAxis("rows", 2)
HEIGHT, WIDTH = DynamicAxis("height", 9), DynamicAxis("width", 11)
TEXT_LENGTH = DynamicAxis("text_length", 77)
ADAPTERS, IP_TOKENS = DynamicAxis("adapters", 2), DynamicAxis("ip_tokens", 4)
IMAGE_TOKENS = DynamicAxis("image_tokens", 9)  # of the image encoder
# Each of the following is 1 or the number of rows.
RESIDUAL_ROWS, LOW_RANK_ROWS = DynamicAxis("residual_rows", 2), DynamicAxis("low_rank_rows", 2)
_EXAMPLE_RANK = 3


def rank_axis(layer: str) -> DynamicAxis:
    """The rank of one layer's low-rank inputs. Layers may have different ranks in a call."""
    return DynamicAxis(f"{layer}.rank", _EXAMPLE_RANK)


def scaled(axis: DynamicAxis, prefix: str, factor: int) -> DynamicAxis:
    """An axis in pixels, for an axis in latents."""
    return DynamicAxis(f"{prefix}_{axis.name}", axis.example * factor)


def example_shape(axes: TensorAxes) -> list[int]:
    return [axis.example if isinstance(axis, DynamicAxis) else axis for axis in axes]


def dynamic_names(axes: TensorAxes) -> dict[int, str]:
    """Position -> name of the dynamic axes, as torch's and optimum's exporters take it."""
    return {position: axis.name for position, axis in enumerate(axes) if isinstance(axis, DynamicAxis)}


def shown_axes(axes: TensorAxes) -> Axes:
    """The axes as the manifest shows them: sizes and names."""
    return tuple(axis.name if isinstance(axis, DynamicAxis) else axis for axis in axes)
