"""The OpenVINO engine: networks from exported graphs, on a CPU.

`bind` compiles the base weights of a checkpoint once for each graph: without low-rank inputs, with those of linear
layers, and with those of convolutions too. LoRAs are inputs of the calls, so rows with different ones share a call.
Changes of other kinds are merged into the weights, and compiled with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from runtime.artifacts.artifact import Artifact
from runtime.artifacts.flat_fields import unflatten
from runtime.artifacts.manifest import LowRankMode
from runtime.engines import stacking
from runtime.engines.check_weights_fit import check_fit
from runtime.engines.compiled import low_rank
from runtime.engines.compiled.call_inputs import call_inputs, fixed_shapes
from runtime.engines.compiled.embed_tokens import embed_tokens, first_tokens, outside_shapes, token_count
from runtime.engines.compiled.low_rank import LowRankPart
from runtime.engines.engine import Binding, CallSizes, Field, Inputs, Outputs
from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.compiled_cache import CompiledCache, OpenVinoBinding
from runtime.engines.openvino.compiled_files import CompiledFiles
from runtime.engines.openvino.compiler import Compiler
from runtime.engines.openvino.first_call import first_inputs
from runtime.engines.openvino.graph import Graph
from runtime.memory import give_back, resident_bytes
from runtime.networks.architecture import Architecture
from runtime.weights.merge import merge
from runtime.weights.read_base import read_base
from runtime.weights.reshaped import reshaped
from runtime.weights.weight_set import WeightSet

_NOTHING = LowRankPart({})
# A compiled model has at most so many times the bytes of its weights, plus these.
_MOST_GROWTH, _FIXED_BYTES = 2, 32 << 20


class OpenVinoEngine:
    """Runs one architecture. A call's rows have one compiled model; each has its own low-rank inputs."""

    name = "openvino"
    calls_per_turn = 1  # another compiled model costs nothing

    def __init__(
        self,
        architecture: Architecture,
        graphs: Mapping[LowRankMode, Artifact],
        compiler: Compiler,
        files: CompiledFiles,
        cache: CompiledCache,
    ) -> None:
        """`graphs`: the artifacts of the architecture in the order of `low_rank_modes`."""
        self._architecture, self._compiler, self._files, self._cache = architecture, compiler, files, cache
        self._options = architecture.options
        self._graphs = {mode: Graph(artifact, compiler.dtype) for mode, artifact in graphs.items()}

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def bind(
        self, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None = None
    ) -> OpenVinoBinding:
        check_fit(weights, self._architecture.kind, self._shapes())
        mode = self._mode(weights)
        manifest = self._graphs[mode].manifest
        key = f"{self._architecture.digest}:{weights.digest}"
        with ExitStack() as uses:
            if mode == "none":
                compiled, part = self._use_compiled(uses, mode, weights, check_cancelled, sizes), _NOTHING
            else:
                beside = self._cache.low_rank.need(key, low_rank.part_bytes(manifest, weights))
                base = WeightSet(weights.base)
                compiled = self._use_compiled(uses, mode, base, check_cancelled, sizes, beside)
                part = self._cache.low_rank.use(
                    uses, key, lambda: low_rank.read_low_rank(manifest, weights, check_cancelled)
                )
            return OpenVinoBinding(compiled, part, uses.pop_all().close, has_fixed_sizes=sizes is not None)

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        assert isinstance(binding, OpenVinoBinding)
        return binding.compiled, binding.low_rank.ranks, stacking.shapes(inputs)

    @torch.inference_mode()
    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        bindings = [binding for binding, _ in rows if isinstance(binding, OpenVinoBinding)]
        compiled, first = bindings[0].compiled, bindings[0].low_rank
        fields: dict[str, Field] = stacking.stack([inputs for _, inputs in rows])
        tokens = token_count(fields)
        if tokens:
            fields = embed_tokens(fields, compiled.outside, self._options)
        # Each row has its own low-rank inputs even if all are equal: another shape of them could give other bytes.
        inputs = {name: torch.stack([binding.low_rank.inputs[name] for binding in bindings]) for name in first.inputs}
        outputs = compiled.run(call_inputs(compiled.manifest, fields, inputs))
        return stacking.unstack(first_tokens(unflatten(outputs), tokens), len(rows))

    def _mode(self, weights: WeightSet) -> LowRankMode:
        """The graph for these weights: the first that takes all their changes as low-rank inputs.

        `none` if no graph does: then the changes are merged.
        """
        takers = (mode for mode, graph in self._graphs.items() if low_rank.takes(graph.manifest, weights))
        return next(takers, "none")

    def _shapes(self) -> dict[str, torch.Size]:
        """The parameters of the network."""
        return self._graphs["none"].shapes | outside_shapes(self._architecture)

    def _use_compiled(
        self,
        uses: ExitStack,
        mode: LowRankMode,
        weights: WeightSet,
        check_cancelled: Callable[[], None],
        sizes: CallSizes | None,
        beside: Mapping[str, int] | None = None,
    ) -> Compiled:
        """beside: bytes of what is acquired next, by key."""
        base = f"{self._architecture.digest}:{weights.base.weights_digest}"
        key = f"{mode}:{sizes}:{weights.digest}"
        graph = self._graphs[mode]
        nbytes = graph.nbytes(self._compiler.dtype)

        def make() -> Compiled:
            """The compiler cannot be cancelled."""
            before = resident_bytes()
            compiled = self._compile(graph, weights, check_cancelled, sizes)
            give_back()
            # Bounded, because memory that other threads take meanwhile is counted too.
            compiled.nbytes = min(max(nbytes, resident_bytes() - before), _MOST_GROWTH * nbytes + _FIXED_BYTES)
            return compiled

        return self._cache.use_compiled(uses, base, key, make, nbytes, check_cancelled, beside)

    def _compile(
        self, graph: Graph, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None
    ) -> Compiled:
        """Raises the errors of reading the weights and of `check_cancelled`."""

        def make_model() -> Any:
            model = graph.bind(self._read(graph.shapes, weights, check_cancelled, self._compiler.dtype))
            check_cancelled()
            return model

        outside = self._read(graph.manifest.outside, weights, check_cancelled)
        shapes = None if sizes is None else fixed_shapes(graph.manifest, self._architecture, sizes)
        if shapes and graph.times:
            shapes |= graph.times.shapes(shapes)
        key = f"{graph.manifest.graph_sha256}:{weights.digest}"
        compiled = self._compiler.read_or_compile(
            self._files, key, make_model, shapes, graph.nbytes(self._compiler.dtype)
        )
        first = first_inputs(graph.manifest, self._architecture) if sizes is None else {}
        return Compiled(compiled, graph.manifest, outside, first, graph.times)

    def _read(
        self,
        names: Collection[str],
        weights: WeightSet,
        check_cancelled: Callable[[], None],
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, torch.Tensor]:
        """These parameters with their changes, in the network's shapes. Vectors are float32, others have `dtype`."""
        shapes = self._shapes()
        found: dict[str, torch.Tensor] = {}
        for name, stored in read_base(weights.base, names, check_cancelled):
            tensor = torch.empty(shapes[name], dtype=torch.float32)
            base = reshaped(stored, tensor.shape)
            if name in weights.changed:
                merge(base, weights.read(name), tensor)
            else:
                tensor.copy_(base)
            found[name] = tensor.to(dtype) if tensor.dim() > 1 else tensor
        weights.check_unchanged()
        return found
