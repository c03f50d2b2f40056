"""The parity gate of plans: on a GPU, a plan must compute what torch computes in float32, at full size.

The weights are random. The calls have the smallest and the typical sizes of the profile, and odd ones with all optional
fields. The weights change from the base to two other sets and back, after which no byte may differ in several calls.

A GPU with 24 GB has no place for SDXL's UNet in float32 beside its plan. So torch computes everything first, with one
weight set at a time, and the sets are in the machine's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from export.errors import ExportError
from export.free_memory import free_memory
from export.gate_inputs import flat_inputs
from export.gate_weights import Weights, expected_outputs, merged_weight, random_lora, random_weights
from export.progress import Show
from export.tensorrt.profiles import call_of
from runtime.artifacts.graph_call import GraphCall
from runtime.artifacts.plan import Plan
from runtime.artifacts.plan_manifest import Precision, Profile
from runtime.engines.contents import Contents
from runtime.engines.exact_inputs import EXACT_INPUTS
from runtime.engines.tensorrt.call_graphs import CALLS_BEFORE
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.loaded_plan import LoadedPlan
from runtime.networks.architecture import Architecture

# Of an output's norm. On a GPU, float32 convolutions and products may round to 10 bits (TF32).
TOLERANCES: Mapping[Precision, float] = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
_STRENGTH = 0.3  # of the change of a weight, relative to the weight
_ODD = 5  # added to the typical height; half of it to the width


class _Case(NamedTuple):
    """A call, and its inputs as the plan takes them. `what` names it in an error."""

    what: str
    inputs: Weights


@dataclass(frozen=True)
class PlanGate:
    """A plan, and where it runs."""

    architecture: Architecture
    plan: Plan
    stream: CallStream
    device: torch.device

    @torch.inference_mode()
    def check(self, show: Show) -> float:
        """The largest relative error. Raises ExportError when one is too large, and PlanError."""
        show("computes with torch what the plan must compute")
        sets, cases, loras = self._weight_sets(), self._cases(), self._loras()
        expected = {name: self._expected(contents, {}, cases) for name, contents in sets.items()}
        expected_with_lora = self._expected(sets["base"], loras, cases) if loras else []
        show("loads the plan")
        loaded = LoadedPlan(self.plan, self.stream, self.device, cuda_graphs=True)
        found, worst = {}, 0.0
        for name, contents in sets.items():
            show(f"compares the plan with torch: weights {name}")
            found[name] = self._run(loaded, contents, cases)
            worst = max(worst, self._compare(cases, found[name], expected[name], f"weights {name}"))
        self._check_repeated(loaded, sets["base"], cases, found["base"])
        if not loras:
            return worst
        with_lora = self._run(loaded, sets["base"], [self._with_lora(case, loras) for case in cases])
        return max(worst, self._compare(cases, with_lora, expected_with_lora, "a LoRA"))

    def _check_repeated(
        self, loaded: LoadedPlan, base: Contents, cases: Sequence[_Case], expected: Sequence[Weights]
    ) -> None:
        """The base's bytes are the same after other weights, and when a CUDA graph runs them.

        The first case comes again at the end: its graph must not run with what the context holds of the others.
        """
        for case, outputs in zip([*cases, cases[0]], [*expected, expected[0]], strict=True):
            for number, again in enumerate(self._run(loaded, base, [case] * (CALLS_BEFORE + 2))):
                if any(not torch.equal(again[name], value) for name, value in outputs.items()):
                    raise ExportError(
                        f"call {number + 1} with the base weights after others gives other bytes ({case.what})"
                    )

    def _weight_sets(self) -> dict[str, Contents]:
        """The base, and two sets that each change about half of its parameters; not on the GPU."""
        dtype, weights = getattr(torch, self.plan.manifest.key.precision), random_weights(self.architecture)
        rounded = {name: weights.pop(name).to(dtype) for name in list(weights)}
        base = Contents("base", "base", frozenset(), rounded)
        return {"base": base, "A": self._changed(base, "A", 2), "B": self._changed(base, "B", 3)}

    def _changed(self, base: Contents, key: str, every: int) -> Contents:
        generator = torch.Generator(self.device).manual_seed(every)
        changed = {}
        for name, value in list(base.tensors.items())[::every]:
            noise = torch.randn(value.shape, generator=generator, device=self.device)
            changed[name] = (value.to(self.device) * (1 + _STRENGTH * noise)).to(value.dtype).cpu()
        return replace(base, key=key, changed=frozenset(changed), tensors={**base.tensors, **changed})

    def _cases(self) -> list[_Case]:
        calls = gate_calls(self.plan.manifest.profile)
        return [_Case(str(call), self._inputs(flat_inputs(self.plan.graph, self.architecture, call))) for call in calls]

    def _loras(self) -> Weights:
        """A random LoRA as low-rank inputs without a row axis; none when the plan takes none."""
        takes = self.plan.manifest.profile.rank[2]
        return {name: value.to(self.device) for name, value in random_lora(self.plan.graph).items()} if takes else {}

    def _with_lora(self, case: _Case, loras: Weights) -> _Case:
        """The case with the LoRA in each row."""
        rows = {name: value.expand(len(case.inputs[name]), *value.shape) for name, value in loras.items()}
        return case._replace(inputs={**case.inputs, **self._inputs(rows)})

    def _inputs(self, inputs: Weights) -> dict[str, torch.Tensor]:
        """On the device, rounded to the plan's precision."""
        dtype = getattr(torch, self.plan.manifest.key.precision)
        return {
            name: value.to(self.device, value.dtype if name in EXACT_INPUTS else dtype).contiguous()
            for name, value in inputs.items()
        }

    def _expected(self, contents: Contents, loras: Weights, cases: Sequence[_Case]) -> list[Weights]:
        """What torch computes in float32, with a LoRA merged. Nothing else stays on the GPU."""
        floats = {
            name: merged_weight(name, value.to(self.device).float(), loras) for name, value in contents.tensors.items()
        }
        found = [expected_outputs(self.architecture, self.plan.graph, floats, _floats(case.inputs)) for case in cases]
        del floats
        free_memory()
        return found

    def _run(self, loaded: LoadedPlan, contents: Contents, cases: Sequence[_Case]) -> list[Weights]:
        """The plan's outputs. The weights are on the GPU until this returns."""
        tensors = {name: value.to(self.device) for name, value in contents.tensors.items()}
        placed = replace(contents, tensors=tensors)
        found: list[Weights] = []
        for case in cases:
            with self.stream.call():
                loaded.weights.hold(placed)
                found.append(loaded.run(case.inputs))
        return found

    def _compare(
        self, cases: Sequence[_Case], found: Sequence[Weights], expected: Sequence[Weights], weights: str
    ) -> float:
        """The largest relative error. Raises ExportError."""
        worst = 0.0
        for case, outputs, values in zip(cases, found, expected, strict=True):
            errors = {name: float((outputs[name] - value).norm() / value.norm()) for name, value in values.items()}
            name = max(errors, key=lambda name: errors[name])
            if not max(errors.values()) < TOLERANCES[self.plan.manifest.key.precision]:
                raise ExportError(
                    f"the plan differs from torch: {name} by {errors[name]:.1e} of its norm, {case.what} with {weights}"
                )
            worst = max(worst, errors[name])
        return worst


def _floats(inputs: Weights) -> Weights:
    return {name: value if name in EXACT_INPUTS else value.float() for name, value in inputs.items()}


def gate_calls(profile: Profile) -> list[GraphCall]:
    """The smallest and the typical sizes; then odd sizes with two chunks of text and two adapters, if there may be."""
    smallest, typical = call_of(profile, 0), call_of(profile, 1)
    odd = typical._replace(
        height=min(typical.height + _ODD, profile.height[2]),
        width=min(typical.width + _ODD // 2, profile.width[2]),
        chunks=min(2, profile.text_chunks[2]),
        adapters=min(2, profile.adapters[2]),
        tokens=min(4, profile.ip_tokens[2]),
    )
    return [smallest, typical, odd]
