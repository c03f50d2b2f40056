"""Whether a plan takes calls of some sizes, before anything is computed."""

from __future__ import annotations

from runtime.artifacts.graph_call import GraphCall, axis_size
from runtime.artifacts.plan import Plan
from runtime.engines.engine import SizesError
from runtime.networks.architecture import Architecture

_WHAT = {
    "rows": "rows in a call (LORIKEET_BLOCK_ROWS)",
    "text_length": "tokens of text",
    "adapters": "image prompts",
    "ip_tokens": "tokens of an image prompt",
    "image_tokens": "tokens of a picture",
    "height": "latents of height, an eighth of the pixels",
    "width": "latents of width, an eighth of the pixels",
    "pixel_height": "pixels of height",
    "pixel_width": "pixels of width",
}
# A call without ControlNets, masks or LoRAs has the smallest of these. Their largest follow from the height and width,
# and the engine merges a LoRA of a larger rank.
_OPTIONAL = ("residual_", "ip_queries", "low_rank_rows")


def check_sizes(plan: Plan, architecture: Architecture, call: GraphCall) -> None:
    """Raises SizesError when the plan does not take a call of these sizes, whose rank does not count."""
    for tensor in plan.graph.inputs:
        smallest, _, largest = plan.manifest.shapes[tensor.name]
        for axis, low, high in zip(tensor.axes, smallest, largest, strict=True):
            if isinstance(axis, int) or axis.endswith(".rank") or axis.startswith(_OPTIONAL):
                continue
            size = axis_size(axis, architecture, call)
            if not low <= size <= high:
                raise SizesError(axis, _message(architecture, _WHAT.get(axis, axis), size, low, high))


def _message(architecture: Architecture, what: str, size: int, low: int, high: int) -> str:
    return f"{size} {what}; the TensorRT plan of the {architecture.kind} takes {low} to {high}"
