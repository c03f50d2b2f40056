"""The weights of all torch engines of a process, within one budget of bytes.

A base is in memory once for each dtype, memory format and device; all architectures share it. A weight set with changes
adds only its merged tensors, and keeps the base in use.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from runtime.engines.lru_budget import LruBudget
from runtime.engines.torch.base_tensors import BaseTensors
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.parameter_spec import ParameterSpec, TensorForm
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.weights.merge import merge
from runtime.weights.weight_set import WeightSet

CheckCancelled = Callable[[], None]


@dataclass(frozen=True, eq=False)
class TorchBinding:
    """Tensors by parameter name, in use until released. Equal keys name equal tensors of the same architecture."""

    key: str
    tensors: Mapping[str, torch.Tensor]
    release: Callable[[], None]


class EvictionListener(Protocol):
    """An engine that may still point at evicted weights."""

    def forget(self, key: str) -> None:
        """The weights of this key were evicted: free their memory."""


@dataclass(frozen=True, eq=False)
class _Merged:
    """The merged tensors of a weight set over a base."""

    tensors: Mapping[str, torch.Tensor]
    on_evict: Callable[[_Merged], None]

    @cached_property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def evicted(self) -> None:
        self.on_evict(self)


@dataclass
class WeightsCounts:
    """How often a cache read base weights, merged changes, found merged weights in memory, and evicted weights."""

    loads: int = 0
    merges: int = 0
    merged_hits: int = 0
    evictions: int = 0


class WeightsCache:
    """Binds weight sets. One thread at a time binds; any thread releases."""

    def __init__(self, budget: int, merge_threads: MergeThreads) -> None:
        self._budgeted: LruBudget[BaseTensors | _Merged] = LruBudget(budget)
        self._pool = TensorPool()
        self._merge_threads = merge_threads
        self.counts = WeightsCounts()
        self._listeners: weakref.WeakSet[EvictionListener] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory."""
        return self._budgeted.nbytes

    def listen(self, listener: EvictionListener) -> None:
        """Call the listener's `forget` at every eviction. The cache keeps only a weak reference to it."""
        self._listeners.add(listener)

    def bind(self, spec: ParameterSpec, weights: WeightSet, check_cancelled: CheckCancelled) -> TorchBinding:
        """The tensors of a weight set that fits the spec (see `check_fit`).

        Raises the errors of reading the weights and of `check_cancelled`.
        """
        base_key = f"{weights.base.weights_digest}:{spec.form}"
        merged_key = f"{spec.architecture}:{weights.digest}:{spec.form}"
        with self._pool.collecting():
            self._make_room(base_key, merged_key, spec, weights, check_cancelled)
            base = self._acquire_base(base_key, spec, weights, check_cancelled)
            tensors = {name: _reshaped(base.tensors[name], shape) for name, shape in spec.shapes.items()}
            if not weights.changed:
                return TorchBinding(base_key, tensors, lambda: self._budgeted.release(base_key))
            try:

                def make() -> _Merged:
                    merged = self._merge(tensors, spec, weights, check_cancelled)
                    self._budgeted.retain(base_key)
                    self.counts.merges += 1
                    return _Merged(merged, lambda evicted: self._evict_merged(merged_key, base_key, evicted))

                self.counts.merged_hits += merged_key in self._budgeted
                merged = self._budgeted.acquire(merged_key, make)
            finally:
                self._budgeted.release(base_key)
        return TorchBinding(merged_key, tensors | dict(merged.tensors), lambda: self._budgeted.release(merged_key))

    def _make_room(
        self, base_key: str, merged_key: str, spec: ParameterSpec, weights: WeightSet, check_cancelled: CheckCancelled
    ) -> None:
        """Evict unused weights until the tensors that are not in memory yet fit into the budget."""
        base = self._budgeted.get(base_key)
        missing = spec.shapes.keys() - (base.tensors.keys() if base else ())
        numbers = sum(spec.shapes[name].numel() for name in missing)
        if weights.changed and merged_key not in self._budgeted:
            numbers += sum(spec.shapes[name].numel() for name in weights.changed)
        if numbers:
            self._budgeted.make_room(numbers * spec.form.dtype.itemsize, check_cancelled, keep=base_key)

    def _acquire_base(
        self, key: str, spec: ParameterSpec, weights: WeightSet, check_cancelled: CheckCancelled
    ) -> BaseTensors:
        """The base, in use, with all parameters of the spec."""

        def make() -> BaseTensors:
            return BaseTensors(
                lambda shape: self._empty(shape, spec.form), lambda evicted: self._evicted(key, evicted.tensors)
            )

        base = self._budgeted.acquire(key, make)
        assert isinstance(base, BaseTensors)
        before = base.nbytes
        try:
            base.load(weights.base, spec.shapes.keys(), check_cancelled)
            self.counts.loads += base.nbytes > before
        except BaseException:
            self._budgeted.release(key)
            raise
        return base

    def _merge(
        self, base: Mapping[str, torch.Tensor], spec: ParameterSpec, weights: WeightSet, check_cancelled: CheckCancelled
    ) -> dict[str, torch.Tensor]:
        """The changed parameters, each summed from the base and its changes."""
        merged: dict[str, torch.Tensor] = {}

        def work(names: Iterator[str]) -> None:
            for name in names:
                check_cancelled()
                merged[name] = self._empty(spec.shapes[name], spec.form)
                merge(base[name], weights.read(name), merged[name])

        self._merge_threads.map(work, weights.changed)
        weights.check_unchanged()
        return merged

    def _empty(self, shape: torch.Size, form: TensorForm) -> torch.Tensor:
        """Memory for a parameter, from an evicted one of equal shape, dtype and device when there is one."""
        recycled = self._pool.take(shape, form.dtype, form.device)
        if recycled is not None:
            return recycled
        memory_format = form.memory_format if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=form.dtype, device=form.device, memory_format=memory_format)

    def _evict_merged(self, key: str, base_key: str, merged: _Merged) -> None:
        self._evicted(key, merged.tensors)
        self._budgeted.release(base_key)

    def _evicted(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self.counts.evictions += 1
        for listener in list(self._listeners):
            listener.forget(key)
        self._pool.recycle(tensors.values())


def _reshaped(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A linear layer's weight as that of a 1x1 convolution, or the reverse. Other weights are unchanged."""
    return tensor if tensor.shape == shape or tensor.numel() != shape.numel() else tensor.reshape(shape)
