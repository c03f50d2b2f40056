"""LoRA (arXiv 2106.09685) in linear layers and convolutions (LoCon), with or without a Tucker core."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.lora.kinds.lora_kind import FactorsError, FactorShapes, FactorTensors, Shape, product_shape, require
from runtime.weights.change import LowRank


class _Lora:
    """down [rank, in, ...] and up [out, rank, 1...]; a Tucker core, mid [rank, rank, ...], holds the kernel axes."""

    name = "LoRA"
    parameter = "weight"
    is_low_rank = True
    roles: Mapping[str, str] = {
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora_A": "down",
        ".lora_B": "up",
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

    def shape(self, factors: FactorShapes) -> Shape:
        down, up = require(factors, "down", "up")
        if (mid := factors.get("mid")) is None:
            return product_shape(up, down)
        if len(mid) < 3 or mid[0] != mid[1] or any(size != 1 for size in down[2:]):
            raise FactorsError(
                f"up, mid and down have shapes {list(up)}, {list(mid)} and {list(down)}; "
                "expected [out, r], [r, r, kernel] and [r, in]"
            )
        return (*product_shape(up, product_shape(mid[:2], down)[:2]), *mid[2:])

    def alpha_rank(self, factors: FactorShapes) -> int | None:
        return factors["down"][0]

    def change(self, factors: FactorTensors, scale: float) -> LowRank:
        down = factors["down"]
        if "mid" in factors:  # `down` is a 1x1 convolution before `mid`: their product is one convolution
            mid, first = factors["mid"].float(), down.float().flatten(1)
            down = (mid.movedim(1, -1) @ first).movedim(-1, 1)
        return LowRank(down, factors["up"], scale)


LORA = _Lora()
