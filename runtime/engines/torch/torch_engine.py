"""The torch engine: every feature, CPU and CUDA, the numerical oracle of the others. It needs no export.

The network has no weights of its own. To bind is to have the tensors ready: the base once, and for a weight set that
changes it the merged tensors alone. To run is to point the network's parameters at them, which costs nothing when
they are the ones of the last call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from runtime.engines.engine import Binding, Graph, Inputs, Outputs, WeightsError
from runtime.engines.placement import Placement
from runtime.engines.residency import Residency
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.engines.torch.upcast import compute_in_float32
from runtime.networks.build import build, parameters
from runtime.weights.merge import merge
from runtime.weights.weight_set import WeightSet, base_tensors

_LISTED, _LONGEST_NAME = 6, 120
# Numbers that count: their embeddings are computed in float32, where bfloat16 would merge neighbouring timesteps.
_EXACT = {"t", "time_ids", "ids"}


@dataclass(frozen=True)
class Weights:
    """Tensors by parameter name. Those in `own` belong to this set alone; `let_go` releases what it shares."""

    tensors: Mapping[str, torch.Tensor]
    own: frozenset[str]
    let_go: Callable[[Weights], None]

    @cached_property
    def nbytes(self) -> int:
        return sum(self.tensors[name].nbytes for name in self.own)

    def dropped(self) -> None:
        self.let_go(self)


@dataclass(frozen=True)
class TorchBinding:
    """Weights in use, until released."""

    key: str
    weights: Weights
    release: Callable[[], None]


class TorchEngine:
    """Runs one graph in torch eager. The rest is shared by all engines of a process: there is one budget."""

    name = "torch"

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        residency: Residency[Weights],
        tensor_pool: TensorPool,
        merge_threads: MergeThreads,
    ) -> None:
        self._graph, self._residency, self._tensor_pool, self._merge_threads = (
            graph,
            residency,
            tensor_pool,
            merge_threads,
        )
        self._device, self._dtype = placement.device, _safe_dtype(graph, placement.dtype)
        self._computes = torch.float32 if placement.upcasts else self._dtype
        self._network = build(graph)
        self._parameters = parameters(self._network)
        if placement.upcasts:
            compute_in_float32({owner for owner, _, _ in self._parameters.values()})
        # Convolutions in reduced precision are much faster with channels last (facts: 1.7 to 2.4 times on a CPU).
        self._format = torch.contiguous_format if self._computes == torch.float32 else torch.channels_last
        self._current: Weights | None = None
        self._pointing = threading.Lock()

    @property
    def precision(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def bind(self, weights: WeightSet, stop: Callable[[], None] = lambda: None) -> TorchBinding:
        """The weight set's tensors, loaded or merged if they are not there already. Raises WeightsError."""
        base_key, key = (f"{self._graph.digest}:{digest}" for digest in (weights.base.digest, weights.digest))
        if not weights.changed:
            key = base_key
        with self._tensor_pool.collecting():
            if key not in self._residency:
                base_bytes = 0 if base_key in self._residency else self._nbytes(self._parameters)
                self._residency.make_room(base_bytes + self._nbytes(weights.changed), stop, keep=base_key)
            load = partial(self._load, weights, stop)
            if not weights.changed:
                found = self._residency.acquire(key, load)
            else:
                found = self._residency.acquire(key, lambda: self._merge(weights, base_key, load, stop))
        return TorchBinding(key, found, lambda: self._residency.release(key))

    @torch.inference_mode()
    def run(self, binding: Binding, inputs: Inputs) -> Outputs:
        assert isinstance(binding, TorchBinding)
        self._point_at(binding.weights)
        taken = {name: self._take(name, value) for name, value in inputs.items()}
        return {name: _float32(value) for name, value in self._network(**taken).items()}

    def _nbytes(self, names: Iterable[str]) -> int:
        """Bytes that the parameters of these names take, placed; one that the network lacks takes none."""
        known = (self._parameters[name][2].numel() for name in names if name in self._parameters)
        return self._dtype.itemsize * sum(known)

    def _load(self, weights: WeightSet, stop: Callable[[], None]) -> Weights:
        """The base, copied: a mapped file that somebody overwrites would change the weights, or end the process.

        A tensor that the network has no place for is an error too: the configuration leaves out what the weights
        were made with. (The other half of a VAE is none of this one's.)
        """
        tensors, strangers = {}, []
        roots = {name.partition(".")[0] for name in self._parameters}
        for name, tensor in base_tensors(weights.base):
            stop()
            if name not in self._parameters and (self._graph.kind == "unet" or name.partition(".")[0] in roots):
                strangers.append(name)
            if name in self._parameters:
                shape = self._parameters[name][2]
                # A 1x1 convolution and a linear layer are the same weight: old VAEs store one for the other.
                if _core(tensor.shape) != _core(shape):
                    raise WeightsError(
                        f"{weights.base.name}: {name[:_LONGEST_NAME]} is {list(tensor.shape)}, not {list(shape)}"
                    )
                tensors[name] = self._place(tensor.reshape(shape))
        if strangers:
            listed = _listed(strangers)
            raise WeightsError(f"{weights.base.name}: its configuration has no place for {len(strangers)}: {listed}")
        if missing := sorted(self._parameters.keys() - tensors.keys()):
            listed = _listed(missing)
            raise WeightsError(f"{weights.base.name} lacks {len(missing)} of its tensors: {listed}")
        return Weights(tensors, frozenset(tensors), self._forget)

    def _merge(
        self, weights: WeightSet, base_key: str, load: Callable[[], Weights], stop: Callable[[], None]
    ) -> Weights:
        base = self._residency.acquire(base_key, load)
        try:
            if strangers := sorted(weights.changed - base.tensors.keys()):
                raise WeightsError(f"{weights.base.name} has no {_listed(strangers)}")
            merged: dict[str, torch.Tensor] = {}

            def work(mine: Iterator[str]) -> None:
                for name in mine:
                    stop()
                    start, changes = weights.terms(name, base.tensors[name])
                    merged[name] = self._empty(start.shape)
                    merge(start, changes, merged[name])

            self._merge_threads.map(work, weights.changed)
            weights.check_files()
        except BaseException:
            self._residency.release(base_key)
            raise

        def let_go(dropped: Weights) -> None:
            self._forget(dropped)
            self._residency.release(base_key)

        return Weights({**base.tensors, **merged}, frozenset(merged), let_go)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._empty(tensor.shape).copy_(tensor)

    def _empty(self, shape: torch.Size) -> torch.Tensor:
        """Memory for a parameter: that of one that was dropped, if there is one of its kind."""
        recycled = self._tensor_pool.take(shape, self._dtype, self._device)
        if recycled is not None:
            return recycled
        memory_format = self._format if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=self._dtype, device=self._device, memory_format=memory_format)

    def _point_at(self, weights: Weights) -> None:
        with self._pointing:
            if weights is self._current:
                return
            for name, (owner, attribute, _) in self._parameters.items():
                owner._parameters[attribute] = weights.tensors[name]  # type: ignore[assignment]
            self._current = weights

    def _forget(self, weights: Weights) -> None:
        """Free the memory of what was dropped: nobody runs it any more, yet the network may point at it still."""
        with self._pointing:
            if weights is self._current:
                for owner, attribute, shape in self._parameters.values():
                    owner._parameters[attribute] = torch.empty(shape, device="meta")  # type: ignore[assignment]
                self._current = None
        self._tensor_pool.drop(weights.tensors[name] for name in weights.own)

    def _take(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple):
            return tuple(self._take(name, item) for item in value)
        tensor = value.to(self._device, value.dtype if name in _EXACT else self._computes)
        return tensor.contiguous(memory_format=self._format) if tensor.dim() == 4 else tensor


def _listed(names: list[str]) -> str:
    """The first few names, cut to a length: a hostile file's may be megabytes long."""
    return ", ".join(name[:_LONGEST_NAME] for name in names[:_LISTED])


def _safe_dtype(graph: Graph, dtype: torch.dtype) -> torch.dtype:
    """SDXL's VAE overflows in float16; its configuration says so (`force_upcast`)."""
    if dtype == torch.float16 and graph.kind.startswith("vae") and graph.options.get("force_upcast", True):
        return torch.float32
    return dtype


def _core(shape: torch.Size) -> tuple[int, ...]:
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)


def _float32(value: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    return tuple(item.float() for item in value) if isinstance(value, tuple) else value.float()
