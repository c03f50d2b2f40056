"""Computes image prompts as diffusers' pipelines do: CLIP's embeddings, the adapter's projection, keys and values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.conditioning.ip_tokens import AdapterPrompt, packed_prompts
from runtime.engines.ask import Bound
from runtime.engines.engine import Outputs
from runtime.engines.select import Engines
from runtime.metrics.stage_metrics import StageMetrics
from runtime.networks.architecture import NetworkKind
from runtime.networks.clip_pixels import normalized
from runtime.plan import IP_MASK, IpAdapterPlan, Plan
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.watch_weights import watch_weights

CheckCancelled = Callable[[], None]


class NetworkPrompts:
    """One request at a time."""

    def __init__(self, settings: Settings, metrics: StageMetrics) -> None:
        self._engines = Engines(settings, "image_encoder")
        watch_weights(metrics, self._engines.weights)

    def make(self, plan: Plan, call: Call, check_cancelled: CheckCancelled) -> dict[str, Array]:
        """Raises InvalidArgument for weights that do not fit, and what `check_cancelled` raises."""
        assert plan.image_encoder is not None
        embedded = self._embedded(plan, call, plan.image_encoder, check_cancelled)
        prompts = [
            prompt
            for index, adapter in enumerate(plan.ip_adapters)
            for prompt in self._prompts(plan, call, index, adapter, embedded, check_cancelled)
        ]
        keys, values, bias = packed_prompts(prompts)
        return {
            name: array.cpu().numpy()
            for name, array in zip(("IP_KEYS", "IP_VALUES", "IP_BIAS"), (keys, values, bias), strict=True)
        }

    def _embedded(
        self, plan: Plan, call: Call, encoder: Component, check_cancelled: CheckCancelled
    ) -> dict[str, list[Outputs]]:
        """For each picture, the encoder's outputs of the branches: first the negative one, if there are two."""
        found: dict[str, list[Outputs]] = {}
        bound = self._bind(plan, call, "image_encoder", encoder, check_cancelled)
        try:
            for index, adapter in enumerate(plan.ip_adapters):
                factor = plan.request.ip_adapter[index].unconditional_noising_factor
                generator = torch.Generator("cpu").manual_seed(plan.seed)
                for field in adapter.images:
                    picture = plan.picture(field)
                    assert picture is not None
                    pixels = torch.from_numpy(np.array(picture.pixels(call.inputs))).permute(2, 0, 1)
                    unit = pixels.float() / 255.0
                    branches = [normalized(unit)]
                    if plan.guided:
                        branches.insert(0, _negative(unit, factor, generator))
                    found[field] = []
                    for branch in branches:
                        check_cancelled()
                        found[field].append(_run(bound, {"pixels": branch}))
        finally:
            bound.release()
        return found

    def _prompts(
        self,
        plan: Plan,
        call: Call,
        index: int,
        adapter: IpAdapterPlan,
        embedded: dict[str, list[Outputs]],
        check_cancelled: CheckCancelled,
    ) -> Sequence[AdapterPrompt]:
        """The image prompts of an adapter. As in diffusers, its pictures share one attention, or have one each when
        there is a mask."""
        kind = adapter.projection.config["projection"]
        factor = plan.request.ip_adapter[index].unconditional_noising_factor
        bound = self._bind(plan, call, "image_projection", adapter.projection, check_cancelled)
        try:
            prompts = []
            for field in adapter.images:
                branches = []
                for number, outputs in enumerate(embedded[field]):
                    check_cancelled()
                    is_negative = number < len(embedded[field]) - 1
                    name = "embeds" if kind == "base" else "penultimate"
                    given = outputs[name]
                    assert isinstance(given, torch.Tensor)
                    if kind == "base" and is_negative and not factor:
                        given = torch.zeros_like(given)
                    branches.append(_run(bound, {name: given}))
                prompts.append(_prompt(branches, adapter))
        finally:
            bound.release()
        is_masked = plan.picture(IP_MASK.format(index)) is not None
        return prompts if is_masked else [AdapterPrompt.joined(prompts)]

    def _bind(
        self, plan: Plan, call: Call, kind: NetworkKind, component: Component, check_cancelled: CheckCancelled
    ) -> Bound:
        begun = time.monotonic()
        bound = bind_component(self._engines, kind, plan, component, check_cancelled)
        timings = call.report.timings
        timings["image_encoder_load"] = timings.get("image_encoder_load", 0.0) + time.monotonic() - begun
        return bound


def _negative(unit: torch.Tensor, factor: float, generator: torch.Generator) -> torch.Tensor:
    """The negative image prompt: as in diffusers zeros, which are CLIP's mean colour; with a factor, the picture plus
    noise. The second has no public formula."""
    if not factor:
        return torch.zeros_like(unit)
    noise = torch.randn(unit.shape, generator=generator)
    return normalized((unit + factor * noise).clamp(0, 1))


def _run(bound: Bound, inputs: dict[str, torch.Tensor]) -> Outputs:
    return bound.engine.run([(bound.binding, inputs)])[0]


def _prompt(branches: Sequence[Outputs], adapter: IpAdapterPlan) -> AdapterPrompt:
    """One picture's keys and values, the scale of each layer multiplied into its values."""
    keys, values = ([_tensor(outputs[name]) for outputs in branches] for name in ("ip_k", "ip_v"))
    scales = torch.cat(
        [torch.full((width,), scale) for width, scale in zip(adapter.widths, adapter.scales, strict=True)]
    )
    return AdapterPrompt(torch.stack(keys), torch.stack(values) * scales.to(values[0]))


def _tensor(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value
