"""Reuses the memory of evicted weights."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from runtime.engines.torch.parameter_spec import TensorForm
from runtime.memory import give_back

_Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, str]  # shape, strides, dtype, type of device


class TensorPool:
    """Keeps the tensors of evicted weights for new weights, all on one device.

    Memory that was written before is several times faster to write than new pages. Reuse also avoids fragmentation in
    malloc.
    """

    def __init__(self) -> None:
        self._tensors: defaultdict[_Kind, list[torch.Tensor]] = defaultdict(list)
        self._collecting = False
        self._lock = threading.Lock()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what is recycled inside this block for `take`. At its end the rest is returned to the system."""
        self._collecting = True
        try:
            yield
        finally:
            with self._lock:
                self._collecting = False
                is_left = any(self._tensors.values())
                self._tensors.clear()
            if is_left:
                give_back()

    def recycle(self, tensors: Iterable[torch.Tensor]) -> None:
        """Add tensors that are no longer used. Outside of a `collecting` block they are freed."""
        with self._lock:
            if self._collecting:
                for tensor in tensors:
                    self._tensors[tensor.shape, tensor.stride(), tensor.dtype, tensor.device.type].append(tensor)

    def take(self, shape: torch.Size, form: TensorForm) -> torch.Tensor | None:
        """A recycled tensor of this shape and form, its content arbitrary; None when there is none."""
        with self._lock:
            found = self._tensors.get((shape, form.strides(shape), form.dtype, form.device.type))
            return found.pop() if found else None
