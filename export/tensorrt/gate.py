"""The parity gate of plans: on a GPU, a plan must compute what torch computes in float32, at full size.

The weights are random. The calls have the smallest and the typical sizes of the profile, and odd ones with all optional
fields. The weights change from the base to two other sets and back, after which no byte may differ in several calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from export.errors import ExportError
from export.gate_inputs import flat_inputs
from export.gate_weights import Weights, expected_outputs, merged, random_lora, random_weights
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
        show("loads the plan")
        loaded = LoadedPlan(self.plan, self.stream, self.device, cuda_graphs=True)
        sets = self._weight_sets()
        worst = 0.0
        for call in gate_calls(self.plan.manifest.profile):
            show(f"compares the plan with torch: {call}")
            inputs = self._inputs(flat_inputs(self.plan.graph, self.architecture, call))
            found = {name: self._run(loaded, sets[name], inputs) for name in ("base", "A", "B")}
            for name, outputs in found.items():
                worst = max(worst, self._compare(outputs, sets[name].tensors, inputs, f"{call} with weights {name}"))
            self._check_repeated(loaded, sets["base"], inputs, found["base"], call)
            worst = max(worst, self._check_lora(loaded, sets["base"], inputs, call))
        return worst

    def _check_repeated(
        self, loaded: LoadedPlan, base: Contents, inputs: Weights, expected: Weights, call: GraphCall
    ) -> None:
        """The base's bytes are the same after other weights, and when a CUDA graph runs them."""
        for number in range(CALLS_BEFORE + 2):
            again = self._run(loaded, base, inputs)
            if any(not torch.equal(again[name], value) for name, value in expected.items()):
                raise ExportError(f"call {number + 1} with the base weights after others gives other bytes ({call})")

    def _check_lora(self, loaded: LoadedPlan, base: Contents, inputs: Weights, call: GraphCall) -> float:
        """The error with a random LoRA as low-rank inputs; 0 when the graph takes none."""
        loras = {name: value.to(self.device) for name, value in random_lora(self.plan.graph).items()}
        if not loras or not self.plan.manifest.profile.rank[2]:
            return 0.0
        rows = {name: value.expand(call.rows, *value.shape) for name, value in loras.items()}
        outputs = self._run(loaded, base, {**inputs, **self._inputs(rows)})
        floats = {name: value.float() for name, value in base.tensors.items()}
        return self._compare(outputs, merged(floats, loras), inputs, f"{call} with a LoRA")

    def _weight_sets(self) -> dict[str, Contents]:
        """The base, and two sets that each change about half of its parameters."""
        dtype = getattr(torch, self.plan.manifest.key.precision)
        weights = {name: value.to(self.device, dtype) for name, value in random_weights(self.architecture).items()}
        base = Contents("base", "base", frozenset(), weights)
        return {"base": base, "A": self._changed(base, "A", 2), "B": self._changed(base, "B", 3)}

    def _changed(self, base: Contents, key: str, every: int) -> Contents:
        generator = torch.Generator(self.device).manual_seed(every)
        changed = {}
        for name, value in list(base.tensors.items())[::every]:
            noise = torch.randn(value.shape, generator=generator, device=self.device)
            changed[name] = (value * (1 + _STRENGTH * noise)).to(value.dtype)
        return replace(base, key=key, changed=frozenset(changed), tensors={**base.tensors, **changed})

    def _inputs(self, inputs: Weights) -> dict[str, torch.Tensor]:
        """On the device, rounded to the plan's precision."""
        dtype = getattr(torch, self.plan.manifest.key.precision)
        return {
            name: value.to(self.device, value.dtype if name in EXACT_INPUTS else dtype).contiguous()
            for name, value in inputs.items()
        }

    def _run(self, loaded: LoadedPlan, contents: Contents, inputs: Weights) -> dict[str, torch.Tensor]:
        with self.stream.call():
            loaded.weights.hold(contents)
            return loaded.run(inputs)

    def _compare(self, found: Weights, weights: Weights, inputs: Weights, what: str) -> float:
        """The largest relative error. Raises ExportError."""
        floats = {name: value.float() for name, value in weights.items()}
        given = {name: value if name in EXACT_INPUTS else value.float() for name, value in inputs.items()}
        expected = expected_outputs(self.architecture, self.plan.graph, floats, given)
        errors = {name: float((found[name] - value).norm() / value.norm()) for name, value in expected.items()}
        name = max(errors, key=lambda name: errors[name])
        if not max(errors.values()) < TOLERANCES[self.plan.manifest.key.precision]:
            raise ExportError(f"the plan differs from torch: {name} by {errors[name]:.1e} of its norm, {what}")
        return errors[name]


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
