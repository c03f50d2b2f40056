"""The OpenVINO engine: networks from exported graphs, on a CPU.

`bind` compiles the base weights of a checkpoint once. LoRAs of linear layers are inputs of the calls, so rows with
different ones share a call. Any other change is merged into the weights, and compiled with them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack

import torch

from runtime.artifacts.artifact import Artifact
from runtime.artifacts.flat_fields import unflatten
from runtime.artifacts.manifest import LowRankMode
from runtime.engines import stacking
from runtime.engines.check_weights_fit import check_fit
from runtime.engines.compiled import low_rank
from runtime.engines.compiled.call_inputs import call_inputs, fixed_shapes
from runtime.engines.compiled.embed_tokens import embed_tokens
from runtime.engines.compiled.low_rank import LowRankPart
from runtime.engines.engine import Binding, CallSizes, Field, Inputs, Outputs
from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.compiled_cache import CompiledCache, OpenVinoBinding
from runtime.engines.openvino.graph import Graph
from runtime.memory import give_back, resident_bytes
from runtime.networks.architecture import Architecture
from runtime.weights.merge import merge
from runtime.weights.read_base import read_base
from runtime.weights.weight_set import WeightSet

_NOTHING = LowRankPart({})


class OpenVinoEngine:
    """Runs one architecture. A call's rows have one compiled model; each has its own low-rank inputs."""

    name = "openvino"
    calls_per_turn = 1  # another compiled model costs nothing

    def __init__(
        self,
        architecture: Architecture,
        graphs: Mapping[LowRankMode, Artifact],
        dtype: torch.dtype,
        threads: int,
        cache: CompiledCache,
    ) -> None:
        """`graphs`: the artifacts of the architecture (see `read_graphs`)."""
        self._architecture, self._dtype, self._threads, self._cache = architecture, dtype, threads, cache
        self._options = architecture.options
        self._graphs = {mode: Graph(artifact) for mode, artifact in graphs.items()}
        self._taken = low_rank.takes(graphs["linear"].manifest) if "linear" in graphs else frozenset()
        self._precision = "float32"  # until a model is compiled

    @property
    def precision(self) -> str:
        return self._precision

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def bind(
        self, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None = None
    ) -> OpenVinoBinding:
        check_fit(weights, self._architecture.kind, self._shapes(weights))
        with ExitStack() as uses:
            if weights.changed and low_rank.are_inputs(weights, self._taken):
                part = self._use_low_rank(uses, weights, check_cancelled)
                compiled = self._use_compiled(uses, "linear", WeightSet(weights.base), check_cancelled, sizes)
            else:
                part, compiled = _NOTHING, self._use_compiled(uses, "none", weights, check_cancelled, sizes)
            self._precision = compiled.precision
            return OpenVinoBinding(compiled, part, uses.pop_all().close, has_fixed_sizes=sizes is not None)

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        assert isinstance(binding, OpenVinoBinding)
        return binding.compiled, binding.low_rank.ranks, stacking.shapes(inputs)

    @torch.inference_mode()
    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        bindings = [binding for binding, _ in rows if isinstance(binding, OpenVinoBinding)]
        compiled, first = bindings[0].compiled, bindings[0].low_rank
        fields: dict[str, Field] = stacking.stack([inputs for _, inputs in rows])
        if "ids" in fields:
            fields = embed_tokens(fields["ids"], compiled.outside, self._options["eos_token_id"])
        # Each row has its own low-rank inputs even if all are equal: another shape of them could give other bytes.
        inputs = {name: torch.stack([binding.low_rank.inputs[name] for binding in bindings]) for name in first.inputs}
        graph = self._graphs["linear" if first.inputs else "none"]
        padding = self._options.get("downsample_padding", 1)
        outputs = compiled.run(call_inputs(graph.manifest, fields, inputs, padding))
        return stacking.unstack(unflatten(outputs), len(rows))

    def _shapes(self, weights: WeightSet) -> dict[str, torch.Size]:
        """The parameters of the network. Those outside of the graph have the shapes of the files."""
        graph = self._graphs["none"]
        stored = weights.base.shapes
        outside = {name: torch.Size(stored.get(name, ())) for name in graph.manifest.outside}
        return graph.shapes | outside

    def _use_low_rank(self, uses: ExitStack, weights: WeightSet, check_cancelled: Callable[[], None]) -> LowRankPart:
        key = f"{self._architecture.digest}:{weights.digest}"
        return self._cache.low_rank.use(uses, key, lambda: low_rank.read_low_rank(weights, check_cancelled))

    def _use_compiled(
        self,
        uses: ExitStack,
        mode: LowRankMode,
        weights: WeightSet,
        check_cancelled: Callable[[], None],
        sizes: CallSizes | None,
    ) -> Compiled:
        base = f"{self._architecture.digest}:{weights.base.weights_digest}"
        key = f"{mode}:{sizes}:{weights.digest}"
        graph = self._graphs[mode]
        nbytes = sum(shape.numel() for shape in graph.shapes.values()) * self._dtype.itemsize

        def make() -> Compiled:
            """The compiler cannot be cancelled."""
            before = resident_bytes()
            compiled = self._compile(graph, weights, check_cancelled, sizes)
            give_back()
            compiled.nbytes = max(nbytes, resident_bytes() - before)
            return compiled

        return self._cache.use_compiled(uses, base, key, make, nbytes, check_cancelled)

    def _compile(
        self, graph: Graph, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None
    ) -> Compiled:
        """Raises the errors of reading the weights and of `check_cancelled`."""
        tensors = self._read(graph, weights, check_cancelled)
        check_cancelled()
        outside = {name: tensors.pop(name) for name in graph.manifest.outside}
        outputs = [tensor.name for tensor in graph.manifest.outputs]
        shapes = None if sizes is None else fixed_shapes(graph.manifest, sizes)
        return Compiled(graph.bind(tensors), outputs, outside, self._dtype, self._threads, shapes)

    def _read(self, graph: Graph, weights: WeightSet, check_cancelled: Callable[[], None]) -> dict[str, torch.Tensor]:
        """All parameters with their changes, float32, in the graph's shapes."""
        shapes = self._shapes(weights)
        found: dict[str, torch.Tensor] = {}
        for name, stored in read_base(weights.base, shapes.keys(), check_cancelled):
            tensor = torch.empty(shapes[name], dtype=torch.float32)
            if name in weights.changed:
                merge(stored, weights.read(name), tensor)
            else:
                tensor.copy_(stored.reshape(tensor.shape))
            found[name] = tensor
        weights.check_unchanged()
        return found
