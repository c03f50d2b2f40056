"""The torch engine: every feature, CPU and CUDA, the numerical reference of the others. It needs no export.

The network has no weights of its own. `bind` loads the tensors into memory. On a CPU, `run` points the network's
parameters at them, unless they are already the tensors of the last call. On a GPU, a network that a request calls in
every step has parameters at fixed addresses, to which `run` copies the tensors. So one CUDA graph serves all weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from runtime.engines import stacking
from runtime.engines.check_weights_fit import check_fit
from runtime.engines.engine import Binding, CallSizes, Inputs, Outputs, WeightsError
from runtime.engines.exact_inputs import EXACT_INPUTS
from runtime.engines.placement import Placement, safe_dtype
from runtime.engines.torch.calls_ahead import CallsAhead
from runtime.engines.torch.cuda_graphs import CallGraphs
from runtime.engines.torch.parameter_spec import ParameterSpec, TensorForm
from runtime.engines.torch.upcast import compute_in_float32
from runtime.engines.torch.weights_cache import TorchBinding, WeightsCache
from runtime.networks.architecture import Architecture, ArchitectureError
from runtime.networks.build import build, parameters
from runtime.weights.weight_set import WeightSet


class TorchEngine:
    """Runs one architecture in torch eager. A call has one binding: its rows have equal weights."""

    name = "torch"
    calls_per_turn = 1  # another set of weights costs nothing

    def __init__(
        self, architecture: Architecture, placement: Placement, cache: WeightsCache, graphs: CallGraphs | None = None
    ) -> None:
        """With `graphs`, which record and replay calls, the weights stay at fixed addresses.

        Raises WeightsError when no network can be built from the configuration.
        """
        self._architecture, self._cache = architecture, cache
        dtype = safe_dtype(architecture, placement.dtype)
        self._computes = torch.float32 if placement.upcasts else dtype
        # Convolutions in reduced precision are much faster with channels last (measured: 1.7 to 2.4 times on a CPU).
        is_float32 = self._computes == torch.float32
        self._format = torch.contiguous_format if is_float32 else torch.channels_last
        self._form = TensorForm(dtype, self._format, placement.device)
        try:
            self._network = build(architecture)
        except ArchitectureError as error:
            raise WeightsError(str(error)) from error
        self._parameters = parameters(self._network)
        shapes = {name: parameter.shape for name, parameter in self._parameters.items()}
        self._graphs = graphs
        self._ahead = CallsAhead() if placement.device.type == "cuda" else None
        self._spec = ParameterSpec(architecture.digest, shapes, self._form, fixed=graphs is not None)
        if placement.upcasts:
            compute_in_float32({parameter.module for parameter in self._parameters.values()})
        self._current: str | None = None  # the key of the tensors that the network points at
        self._pointing = threading.Lock()
        cache.listen(self)

    @property
    def device(self) -> torch.device:
        return self._form.device

    def bind(
        self, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None = None
    ) -> TorchBinding:
        check_fit(weights, self._architecture.kind, self._spec.shapes)
        return self._cache.bind(self._spec, weights, check_cancelled)

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        assert isinstance(binding, TorchBinding)
        return binding.key, stacking.shapes(inputs)

    @torch.inference_mode()
    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        binding = rows[0][0]
        assert isinstance(binding, TorchBinding)
        if self._ahead:
            self._ahead.begin()
        self._activate(binding)
        batch = stacking.stack([inputs for _, inputs in rows])
        placed = {name: self._placed(name, value) for name, value in batch.items()}
        outputs = self._graphs.call(self._network, placed) if self._graphs else self._network(**placed)
        if self._ahead:
            self._ahead.end()
        return stacking.unstack({name: _float32(value) for name, value in outputs.items()}, len(rows))

    def forget(self, key: str) -> None:
        """Free the memory of evicted weights: no job uses them, but the network may still point at them."""
        with self._pointing:
            if key == self._current:
                for module, attribute, shape in self._parameters.values():
                    module._parameters[attribute] = torch.empty(shape, device="meta")  # type: ignore[assignment]
                if self._graphs:
                    self._graphs.clear()
                self._current = None

    def _activate(self, binding: TorchBinding) -> None:
        """The network's parameters get the weights of the binding."""
        if binding.fixed:
            self._point_at(binding.fixed.key, binding.fixed.tensors)
            binding.fixed.hold(binding.contents)
        else:
            self._point_at(binding.key, binding.tensors)

    def _point_at(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        with self._pointing:
            if key != self._current:
                if self._graphs:
                    self._graphs.clear()
                for name, (module, attribute, _) in self._parameters.items():
                    module._parameters[attribute] = tensors[name]  # type: ignore[assignment]
                self._current = key

    def _placed(self, name: str, value: Any) -> Any:
        """An input on the engine's device, in its precision and memory format."""
        if isinstance(value, tuple):
            return tuple(self._placed(name, item) for item in value)
        # Not blocking: a copy from the CPU would wait for the call that runs on the GPU.
        dtype = value.dtype if name in EXACT_INPUTS else self._computes
        tensor = value.to(self._form.device, dtype, non_blocking=True)
        return tensor.contiguous(memory_format=self._format) if tensor.dim() == 4 else tensor


def _float32(value: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    return tuple(item.float() for item in value) if isinstance(value, tuple) else value.float()
