"""Parity of the engine on the GPU: precisions, CUDA graphs, batches, changes of weights, and diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from benchmarks.gpu.models import GpuModels
from benchmarks.gpu.rows import Rows, batched
from benchmarks.lora_weights import unet_with_loras
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.engine import Inputs, never_cancelled
from runtime.engines.lru_budget import LruBudget
from runtime.engines.placement import Placement, set_convolutions
from runtime.engines.torch.cuda_graphs import CudaGraphs
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import architecture_of
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.merging import Changes, Replacement

CUDA = torch.device("cuda")
_BUDGET = 60 << 30
_CONV_IN = "conv_in.weight"


class BoundUnet:
    """An engine of a UNet with one weight set, in calls of two rows."""

    def __init__(
        self, weights: WeightSet, dtype: torch.dtype, cache: WeightsCache | None = None, cuda_graphs: bool = True
    ) -> None:
        placement = Placement(CUDA, dtype)
        set_convolutions(placement)
        self._placement, self.cache = placement, cache or make_cache()
        graphs = CudaGraphs() if cuda_graphs else None
        self.engine = TorchEngine(architecture_of("unet", weights.base.config), placement, self.cache, graphs)
        self._binding = self.engine.bind(weights, never_cancelled)

    def run(self, row: Inputs, other: Inputs | None = None) -> torch.Tensor:
        """The row's prediction, in a call with another row or with itself."""
        set_convolutions(self._placement)
        outputs = self.engine.run([(self._binding, row), (self._binding, row if other is None else other)])
        prediction = outputs[0]["prediction"]
        assert isinstance(prediction, torch.Tensor)
        return prediction.clone()

    def rebind(self, weights: WeightSet) -> None:
        self._binding.release()
        self._binding = self.engine.bind(weights, never_cancelled)


def make_cache() -> WeightsCache:
    return WeightsCache(LruBudget(_BUDGET), MergeThreads(1))


def lora_weights(models: GpuModels, name: str, checkpoint: Checkpoint, numbers: Sequence[int]) -> WeightSet:
    """The UNet's weights with some LoRAs."""
    return unet_with_loras(checkpoint, [models.lora(name, number) for number in numbers])


def precisions(models: GpuModels, name: str, pixels: int) -> dict[str, Any]:
    """Row kind -> precision -> the relative error against float32 on the same GPU."""
    checkpoint = models.checkpoint(name)
    rows = Rows(checkpoint, pixels, CUDA, seed=1)
    unet, architecture = checkpoint.unet, architecture_of("unet", checkpoint.unet.config)
    cases: dict[str, tuple[WeightSet, Inputs]] = {
        "plain": (WeightSet(unet), rows.with_guidance() if name == "distilled" else rows.plain())
    }
    if name != "distilled":
        cases |= {
            "two LoRAs": (lora_weights(models, name, checkpoint, (1, 2)), rows.plain()),
            "ControlNet residuals": (WeightSet(unet), rows.with_residuals()),
            "two IP-Adapters, one masked": (WeightSet(unet), rows.with_image_prompts(architecture)),
            "8 input channels": (_wide(unet), rows.with_picture()),
        }
    return {case: _errors(*given) for case, given in cases.items()}


def _errors(weights: WeightSet, row: Inputs) -> dict[str, Any]:
    exact = BoundUnet(weights, torch.float32).run(row)
    found: dict[str, Any] = {}
    for dtype in (torch.float16, torch.bfloat16):
        unet = BoundUnet(weights, dtype)
        first, *others = (unet.run(row) for _ in range(4))
        name = str(dtype).removeprefix("torch.")
        found[name] = relative_error(first, exact)
        found[f"{name}: a graph's bytes are those of a call without"] = all(torch.equal(first, it) for it in others)
    return found


def guarantees(models: GpuModels, name: str, pixels: int) -> dict[str, Any]:
    """Whether bytes depend on the neighbour, or on the weights that ran before."""
    checkpoint = models.checkpoint(name)
    rows = Rows(checkpoint, pixels, CUDA, seed=2)
    row, other = rows.plain(), rows.plain()
    sets = {
        "base": WeightSet(checkpoint.unet),
        "A": lora_weights(models, name, checkpoint, (1,)),
        "B": lora_weights(models, name, checkpoint, (2,)),
    }
    unet = BoundUnet(sets["base"], torch.float16)
    predictions = {}
    for step, key in enumerate(("base", "A", "B", "base", "A")):
        unet.rebind(sets[key])
        predictions[step, key] = unet.run(row)
    alone, beside = unet.run(row), unet.run(row, other)
    return {
        "a row's bytes are equal with another neighbour": torch.equal(alone, beside),
        "base -> A -> B -> base -> A: equal bytes": torch.equal(predictions[0, "base"], predictions[3, "base"])
        and torch.equal(predictions[1, "A"], predictions[4, "A"]),
        "A, B and base differ": not torch.equal(predictions[0, "base"], predictions[1, "A"])
        and not torch.equal(predictions[1, "A"], predictions[2, "B"]),
    }


@torch.inference_mode()
def diffusers_unet(models: GpuModels, name: str, pixels: int) -> dict[str, Any]:
    """The float32 engine against diffusers' own UNet in float32."""
    checkpoint = models.checkpoint(name)
    row = Rows(checkpoint, pixels, CUDA, seed=3).plain()
    found = BoundUnet(WeightSet(checkpoint.unet), torch.float32).run(row)
    peer = UNet2DConditionModel.from_pretrained(models.path(name) / "unet", torch_dtype=torch.float32).to(CUDA)
    inputs = {key: value.to(CUDA) for key, value in batched([row, row]).items()}
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if "pooled" in inputs else None
    expected = peer(inputs["latent"], inputs["t"], inputs["text"], added_cond_kwargs=added).sample[0]
    return {"float32 engine against diffusers' UNet": relative_error(found, expected)}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference, relative to the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def _wide(unet: Component) -> WeightSet:
    """The UNet with 8 input channels, with content in the added ones, as IC-Light's."""
    out, inputs, *kernel = unet.shapes[_CONV_IN]
    generator = torch.Generator(CUDA).manual_seed(4)
    value = torch.randn(out, 2 * inputs, *kernel, generator=generator, device=CUDA) * 0.1
    wide = unet.model_copy(update={"config": unet.config | {"in_channels": 2 * inputs}})
    return WeightSet(wide, (Changes("wide", {_CONV_IN: Replacement(value)}),))
