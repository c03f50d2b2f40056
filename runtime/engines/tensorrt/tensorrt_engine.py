"""The TensorRT engine: one plan for an architecture, refitted with the weights of each call.

LoRAs of linear layers are inputs of the calls, so rows with different ones share a call. Any other change is merged
into the weights. A refit replaces only the weights that the last or the next set changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from runtime.artifacts.flat_fields import unflatten
from runtime.artifacts.graph_call import GraphCall
from runtime.artifacts.plan import Plan
from runtime.engines import stacking
from runtime.engines.check_weights_fit import check_fit
from runtime.engines.compiled import low_rank
from runtime.engines.compiled.call_inputs import call_inputs
from runtime.engines.compiled.embed_tokens import embed_tokens, first_tokens, token_count
from runtime.engines.compiled.low_rank import LowRankPart
from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.contents import Contents
from runtime.engines.engine import Binding, CallSizes, Field, Inputs, Outputs
from runtime.engines.exact_inputs import EXACT_INPUTS
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.loaded_plan import LoadedPlan
from runtime.engines.tensorrt.plan_sizes import check_sizes
from runtime.engines.tensorrt.plan_weights import RefitError
from runtime.engines.torch.parameter_spec import ParameterSpec, TensorForm
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import Architecture
from runtime.networks.build import build, parameters
from runtime.weights.weight_set import WeightSet

log = logging.getLogger("lorikeet")
_NOTHING = LowRankPart({})


@dataclass(frozen=True, eq=False)
class TensorRtBinding:
    """Weights on the GPU and the low-rank inputs of calls, in use until released."""

    contents: Contents
    low_rank: LowRankPart
    precision: str
    release: Callable[[], None]
    has_fixed_sizes: bool = False


class TensorRtEngine:
    """Runs one architecture. A call's rows have equal weights in the plan; each has its own low-rank inputs."""

    name = "tensorrt"
    calls_per_turn = 4  # a refit between two calls takes time; how much was not measured yet

    def __init__(
        self,
        architecture: Architecture,
        plan: Plan,
        device: torch.device,
        stream: CallStream,
        weights: WeightsCache,
        low_ranks: LowRankCache,
        cuda_graphs: bool,
    ) -> None:
        """cuda_graphs: see LoadedPlan. Raises PlanError when the plan cannot be loaded."""
        self._architecture, self._plan, self._graph = architecture, plan, plan.graph
        self._cuda_graphs = cuda_graphs
        self._stream, self._weights, self._low_ranks = stream, weights, low_ranks
        dtype: torch.dtype = getattr(torch, plan.manifest.key.precision)
        shapes = {name: parameter.shape for name, parameter in parameters(build(architecture)).items()}
        form = TensorForm(dtype, torch.contiguous_format, device)
        self._spec = ParameterSpec(architecture.digest, shapes, form, fixed=False)
        self._most_rank = plan.manifest.profile.rank[2]
        self._loaded = self._load()
        self._stacked: tuple[tuple[LowRankPart, ...], dict[str, torch.Tensor]] = ((), {})  # of the last call

    @property
    def device(self) -> torch.device:
        return self._spec.form.device

    def check_sizes(self, call: GraphCall) -> None:
        """Raises SizesError when the plan does not take a call of these sizes. A LoRA of any rank can be bound."""
        check_sizes(self._plan, self._architecture, call)

    def bind(
        self, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None = None
    ) -> TensorRtBinding:
        check_fit(weights, self._architecture.kind, self._spec.shapes)
        takes_all = bool(weights.changed) and low_rank.takes(self._graph, weights, self._most_rank)
        key = f"{self._architecture.digest}:{weights.digest}:{self._spec.form}"
        merged, beside = weights, None
        if takes_all:
            merged = WeightSet(weights.base)
            beside = self._low_ranks.need(key, low_rank.part_bytes(self._graph, weights, self._spec.form.dtype))
        with ExitStack() as uses:
            bound = self._weights.bind(self._spec, merged, check_cancelled, beside)
            uses.callback(bound.release)
            part = self._use_low_rank(uses, key, weights, check_cancelled) if takes_all else _NOTHING
            uses.callback(self._forget_stacked, part)
            precision = self._plan.manifest.key.precision
            return TensorRtBinding(bound.contents, part, precision, uses.pop_all().close)

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        assert isinstance(binding, TensorRtBinding)
        return binding.contents.key, binding.low_rank.ranks, stacking.shapes(inputs)

    @torch.inference_mode()
    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        """Raises PlanError, also for sizes that `check_sizes` refuses."""
        bindings = [binding for binding, _ in rows if isinstance(binding, TensorRtBinding)]
        contents = bindings[0].contents
        with self._stream.call():
            stacked = stacking.stack([inputs for _, inputs in rows])
            fields = {name: _placed(value, self.device) for name, value in stacked.items()}
            tokens = token_count(fields)
            if tokens:
                fields = embed_tokens(fields, contents.tensors, self._architecture.options)
            parts = self._stack([binding.low_rank for binding in bindings])
            inputs = call_inputs(self._graph, fields, parts)
            self._refit(contents)
            outputs = self._loaded.run({name: self._typed(name, value) for name, value in inputs.items()})
        return stacking.unstack(first_tokens(unflatten(outputs), tokens), len(rows))

    def _load(self) -> LoadedPlan:
        return LoadedPlan(self._plan, self._stream, self.device, self._cuda_graphs)

    def _refit(self, contents: Contents) -> None:
        """After a failed refit, the plan may hold a part of both sets. Loaded again, it holds none."""
        try:
            self._loaded.weights.hold(contents)
        except RefitError as error:
            log.warning("%s; the plan is loaded again", error)
            self._loaded = self._load()
            self._loaded.weights.hold(contents)

    def _use_low_rank(
        self, uses: ExitStack, key: str, weights: WeightSet, check_cancelled: Callable[[], None]
    ) -> LowRankPart:
        form = self._spec.form
        return self._low_ranks.use(
            uses, key, lambda: low_rank.read_low_rank(self._graph, weights, check_cancelled, form.device, form.dtype)
        )

    def _stack(self, parts: Sequence[LowRankPart]) -> dict[str, torch.Tensor]:
        """The low-rank inputs of all rows. In a job's steps, they are those of the last call."""
        known, inputs = self._stacked
        if known != tuple(parts):
            inputs = {name: torch.stack([part.inputs[name] for part in parts]) for name in parts[0].inputs}
            self._stacked = tuple(parts), inputs
        return inputs

    def _forget_stacked(self, part: LowRankPart) -> None:
        """At the end of a use, on any thread. Otherwise, the part and its copy would exist after its eviction."""
        if part in self._stacked[0]:
            self._stacked = (), {}

    def _typed(self, name: str, value: torch.Tensor) -> torch.Tensor:
        dtype = value.dtype if name in EXACT_INPUTS else self._spec.form.dtype
        return value.to(dtype).contiguous()


def _placed(value: Field, device: torch.device) -> Field:
    if isinstance(value, tuple):
        return tuple(item.to(device, non_blocking=True) for item in value)
    return None if value is None else value.to(device, non_blocking=True)
