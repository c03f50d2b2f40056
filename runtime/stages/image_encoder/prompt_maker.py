"""Computes image prompts as diffusers' pipelines do: CLIP's embeddings, the adapter's projection, keys and values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.checkpoints.checkpoint import Component
from runtime.conditioning.ip_tokens import AdapterPrompt, packed_prompts
from runtime.engines.ask import Bound
from runtime.engines.engine import Outputs
from runtime.engines.select import Engines
from runtime.files.crop_square import crop_square
from runtime.metrics.stage_metrics import StageMetrics
from runtime.networks.architecture import NetworkKind
from runtime.networks.clip_pixels import normalized
from runtime.plan import IP_MASK, IpAdapterPlan, Plan
from runtime.settings import Settings
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.image_encoder.face_prompts import FacePrompt, FacePrompts
from runtime.stages.image_encoder.projection_inputs import projection_inputs
from runtime.stages.watch_weights import watch_weights

CheckCancelled = Callable[[], None]


@dataclass(frozen=True)
class _Projected:
    """What an adapter makes of its pictures. tokens: [branches, tokens of all pictures, width], without any scale."""

    prompts: Sequence[AdapterPrompt]
    tokens: torch.Tensor


class NetworkPrompts:
    """One request at a time."""

    def __init__(self, settings: Settings, metrics: StageMetrics) -> None:
        self._engines = Engines(settings, "image_encoder")
        watch_weights(metrics, self._engines.weights)
        self._faces = FacePrompts()

    def make(self, plan: Plan, call: Call, check_cancelled: CheckCancelled) -> dict[str, Array]:
        """Raises InvalidArgument for weights that do not fit, and what `check_cancelled` raises."""
        faces = self._faces.make(plan, call, check_cancelled)
        embedded = self._embedded(plan, call, faces, check_cancelled)
        numbers = range(len(plan.ip_adapters))
        found = [self._projected(plan, call, index, faces, embedded, check_cancelled) for index in numbers]
        keys, values, bias = packed_prompts([prompt for projected in found for prompt in projected.prompts])
        tokens = [found[index].tokens for index in plan.control_tokens]
        packed = {
            "IP_KEYS": keys,
            "IP_VALUES": values,
            "IP_BIAS": bias,
            "IP_TOKENS": torch.cat(tokens, dim=1) if tokens else torch.zeros(0, 0, 0),
        }
        return {name: tensor.cpu().numpy() for name, tensor in packed.items()}

    def close(self) -> None:
        self._faces.close()

    def _embedded(
        self, plan: Plan, call: Call, faces: Mapping[str, FacePrompt], check_cancelled: CheckCancelled
    ) -> dict[str, list[Outputs]]:
        """For each picture, the encoder's outputs of the branches: first the negative one, if there are two."""
        found: dict[str, list[Outputs]] = {}
        if plan.image_encoder is None:
            return found
        side = int(plan.image_encoder.config.get("image_size", 224))
        bound = self._bind(plan, call, "image_encoder", plan.image_encoder, check_cancelled)
        try:
            for index, adapter in enumerate(plan.ip_adapters):
                factor = plan.request.ip_adapter[index].unconditional_noising_factor
                generator = torch.Generator("cpu").manual_seed(plan.seed)
                for field in adapter.images if adapter.needs_encoder else ():
                    unit = _unit(plan, call, field, faces, side)
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

    def _projected(
        self,
        plan: Plan,
        call: Call,
        index: int,
        faces: Mapping[str, FacePrompt],
        embedded: Mapping[str, list[Outputs]],
        check_cancelled: CheckCancelled,
    ) -> _Projected:
        """The image prompts of an adapter. As in diffusers, its pictures share one attention, or have one each when
        there is a mask."""
        adapter, asked = plan.ip_adapters[index], plan.request.ip_adapter[index]
        encoded = [outputs for field in adapter.images for outputs in embedded.get(field, ())]
        picture_tokens = max((len(_tensor(outputs["penultimate"])) for outputs in encoded), default=1)
        bound = self._bind(plan, call, "image_projection", adapter.projection, check_cancelled, picture_tokens)
        try:
            outputs: list[list[Outputs]] = []
            for field in adapter.images:
                inputs = projection_inputs(adapter, asked, embedded.get(field, ()), faces.get(field))
                outputs.append([])
                for branch in inputs:
                    check_cancelled()
                    outputs[-1].append(_run(bound, branch))
        finally:
            bound.release()
        prompts = [_prompt(branches, adapter) for branches in outputs]
        is_masked = plan.picture(IP_MASK.format(index)) is not None
        tokens = [torch.stack([_tensor(branch["tokens"]) for branch in branches]) for branches in outputs]
        return _Projected(prompts if is_masked else [AdapterPrompt.joined(prompts)], torch.cat(tokens, dim=1))

    def _bind(
        self,
        plan: Plan,
        call: Call,
        kind: NetworkKind,
        component: Component,
        check_cancelled: CheckCancelled,
        tokens: int = 1,
    ) -> Bound:
        begun = time.monotonic()
        bound = bind_component(self._engines, kind, plan, component, check_cancelled, tokens=tokens)
        timings = call.report.timings
        timings["image_encoder_load"] = timings.get("image_encoder_load", 0.0) + time.monotonic() - begun
        return bound


def _unit(plan: Plan, call: Call, field: str, faces: Mapping[str, FacePrompt], side: int) -> torch.Tensor:
    """The picture [3, side, side] in [0, 1] that the encoder sees; of a picture with a face the face alone."""
    picture = plan.picture(field)
    assert picture is not None
    face = faces.get(field)
    pixels = np.array(picture.pixels(call.inputs)) if face is None else crop_square(face.crop, side)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0


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
