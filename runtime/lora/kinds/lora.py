"""LoRA (arXiv 2106.09685) in linear layers and convolutions (LoCon), with a Tucker core or without."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.lora.kinds.kind import PartsError, Shape, Shapes, Tensors, need, product
from runtime.weights.change import LowRank


class _Lora:
    """down [rank, in, ...], up [out, rank, 1...]; with mid [rank, rank, ...] the convolution's kernel is there."""

    name = "LoRA"
    parameter = "weight"
    roles: Mapping[str, str] = {
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora_A.default.weight": "down",
        ".lora_B.default.weight": "up",
        ".lora_linear_layer.down.weight": "down",
        ".lora_linear_layer.up.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
        ".lora_down.weight": "down",
        ".lora_mid.weight": "mid",
        ".lora_up.weight": "up",
        "_lora.down.weight": "down",
        "_lora.up.weight": "up",
    }

    def shape(self, parts: Shapes) -> Shape:
        down, up = need(parts, "down", "up")
        if (mid := parts.get("mid")) is None:
            return product(up, down)
        if len(mid) < 3 or mid[0] != mid[1] or any(size != 1 for size in down[2:]):
            raise PartsError(f"{list(up)}, {list(mid)} and {list(down)} are no product")
        return (*product(up, product(mid[:2], down)[:2]), *mid[2:])

    def rank(self, parts: Shapes) -> int | None:
        return parts["down"][0]

    def change(self, parts: Tensors, scale: float) -> LowRank:
        down = parts["down"]
        if "mid" in parts:  # as a sequence of convolutions: the first, 1x1, goes into the second
            mid, first = parts["mid"].float(), down.float().flatten(1)
            down = (mid.movedim(1, -1) @ first).movedim(-1, 1)
        return LowRank(down, parts["up"], scale)


LORA = _Lora()
