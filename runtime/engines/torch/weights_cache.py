"""The weights of all torch engines of a process, within one budget of bytes.

A base is in memory once for each dtype, memory format and device; all architectures share it. A weight set with changes
adds only its merged tensors, and keeps the base in use.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from runtime.engines.contents import Contents
from runtime.engines.lru_budget import LruBudget, Resident
from runtime.engines.torch.base_tensors import BaseTensors
from runtime.engines.torch.fixed_tensors import FixedTensors
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.parameter_spec import ParameterSpec, TensorForm
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.weights.merge import merge
from runtime.weights.reshaped import reshaped
from runtime.weights.weight_set import WeightSet

CheckCancelled = Callable[[], None]


@dataclass(frozen=True, eq=False)
class TorchBinding:
    """Weights in use until released. `fixed`: the memory to which they are copied before a call; None: they are not."""

    contents: Contents
    fixed: FixedTensors | None
    precision: str
    release: Callable[[], None]
    has_fixed_sizes: bool = False

    @property
    def key(self) -> str:
        return self.contents.key

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        return self.contents.tensors


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a call of `bind` asks for, and the keys of its tensors in the cache."""

    spec: ParameterSpec
    weights: WeightSet
    check_cancelled: CheckCancelled

    @cached_property
    def base_key(self) -> str:
        return f"{self.weights.base.weights_digest}:{self.spec.form}"

    @cached_property
    def key(self) -> str:
        """Of the merged tensors; without changes, that of the base."""
        if not self.weights.changed:
            return self.base_key
        return f"{self.spec.architecture}:{self.weights.digest}:{self.spec.form}"

    @property
    def fixed_key(self) -> str:
        return f"fixed:{self.spec.architecture}:{self.spec.form}"


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

    def __init__(self, budget: LruBudget[Resident], merge_threads: MergeThreads) -> None:
        self._budgeted = budget
        self._pool = TensorPool()
        self._merge_threads = merge_threads
        self.counts = WeightsCounts()
        self._listeners: weakref.WeakSet[EvictionListener] = weakref.WeakSet()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory, of all engines that share the budget."""
        return self._budgeted.nbytes

    def listen(self, listener: EvictionListener) -> None:
        """Call the listener's `forget` at every eviction. The cache keeps only a weak reference to it."""
        self._listeners.add(listener)

    def one_request(self) -> AbstractContextManager[None]:
        """What this thread binds within is for one request: see `LruBudget`."""
        return self._budgeted.one_request()

    def bind(
        self,
        spec: ParameterSpec,
        weights: WeightSet,
        check_cancelled: CheckCancelled,
        beside: Mapping[str, int] | None = None,
    ) -> TorchBinding:
        """The tensors of a weight set that fits the spec (see `check_fit`).

        beside: bytes of further items of the budget, by key, which the caller acquires next; there is room for both.
        Raises the errors of reading the weights and of `check_cancelled`.
        """
        wanted = _Wanted(spec, weights, check_cancelled)
        with self._pool.collecting(), ExitStack() as uses:
            self._make_room(wanted, beside)
            fixed = self._use_fixed(uses, wanted) if spec.fixed else None
            base = self._use_base(uses, wanted)
            tensors = {name: reshaped(base.tensors[name], shape) for name, shape in spec.shapes.items()}
            if weights.changed:
                tensors |= self._use_merged(uses, wanted, tensors).tensors
            contents = Contents(wanted.key, wanted.base_key, frozenset(weights.changed), tensors)
            return TorchBinding(contents, fixed, spec.form.precision, uses.pop_all().close)

    def _make_room(self, wanted: _Wanted, beside: Mapping[str, int] | None) -> None:
        """Evict unused weights until the tensors that are not in memory yet fit into the budget."""
        spec = wanted.spec
        needs = dict(beside or {})
        if wanted.weights.changed:
            needs[wanted.key] = spec.nbytes(wanted.weights.changed)
        if spec.fixed:
            needs[wanted.fixed_key] = spec.nbytes(spec.shapes)
        missing = sum(nbytes for key, nbytes in needs.items() if key not in self._budgeted)
        needs[wanted.base_key] = spec.nbytes(spec.shapes)
        base = self._budgeted.get(wanted.base_key)  # another architecture may have loaded only some of these
        missing += spec.nbytes(spec.shapes.keys() - (base.tensors.keys() if isinstance(base, BaseTensors) else ()))
        self._budgeted.make_room(needs, wanted.check_cancelled, missing)

    def _use(self, uses: ExitStack, key: str, make: Callable[[], BaseTensors | _Merged | FixedTensors]) -> Any:
        """The item of a key, in use until `uses` ends."""
        item = self._budgeted.acquire(key, make)
        uses.callback(self._budgeted.release, key)
        return item

    def _use_fixed(self, uses: ExitStack, wanted: _Wanted) -> FixedTensors:
        """The memory at fixed addresses of the spec's architecture."""
        key, spec = wanted.fixed_key, wanted.spec

        def make() -> FixedTensors:
            tensors = {name: self._empty(shape, spec.form) for name, shape in spec.shapes.items()}
            return FixedTensors(key, tensors, lambda evicted: self._evicted(key, evicted.tensors))

        fixed: FixedTensors = self._use(uses, key, make)
        return fixed

    def _use_base(self, uses: ExitStack, wanted: _Wanted) -> BaseTensors:
        """The base, with all parameters of the spec."""
        key, spec = wanted.base_key, wanted.spec

        def make() -> BaseTensors:
            return BaseTensors(
                lambda shape: self._empty(shape, spec.form), lambda evicted: self._evicted(key, evicted.tensors)
            )

        base: BaseTensors = self._use(uses, key, make)
        before = base.nbytes
        base.load(wanted.weights.base, spec.shapes.keys(), wanted.check_cancelled)
        self.counts.loads += base.nbytes > before
        return base

    def _use_merged(self, uses: ExitStack, wanted: _Wanted, base: Mapping[str, torch.Tensor]) -> _Merged:
        """The merged tensors, which keep the base in use."""
        key, base_key = wanted.key, wanted.base_key

        def make() -> _Merged:
            merged = self._merge(wanted, base)
            self._budgeted.pin(base_key)
            self.counts.merges += 1
            return _Merged(merged, lambda evicted: self._evict_merged(key, base_key, evicted))

        self.counts.merged_hits += key in self._budgeted
        merged: _Merged = self._use(uses, key, make)
        return merged

    def _merge(self, wanted: _Wanted, base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The changed parameters, each summed from the base and its changes."""
        spec, weights = wanted.spec, wanted.weights
        merged: dict[str, torch.Tensor] = {}

        def work(names: Iterator[str]) -> None:
            for name in names:
                wanted.check_cancelled()
                merged[name] = self._empty(spec.shapes[name], spec.form)
                merge(base[name], weights.read(name), merged[name])

        self._merge_threads.map(work, weights.changed)
        weights.check_unchanged()
        return merged

    def _empty(self, shape: torch.Size, form: TensorForm) -> torch.Tensor:
        """Memory for a parameter, from an evicted one of equal shape and form when there is one."""
        recycled = self._pool.take(shape, form)
        return form.empty(shape) if recycled is None else recycled

    def _evict_merged(self, key: str, base_key: str, merged: _Merged) -> None:
        self._evicted(key, merged.tensors)
        self._budgeted.unpin(base_key)

    def _evicted(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self.counts.evictions += 1
        for listener in list(self._listeners):
            listener.forget(key)
        self._pool.recycle(tensors.values())
