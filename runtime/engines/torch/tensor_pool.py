"""The memory of weights that come and go."""

from __future__ import annotations

import ctypes
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

_Kind = tuple[torch.Size, torch.dtype, torch.device]


class TensorPool:
    """Hands the tensors of weights that are dropped to those that they are dropped for.

    Memory that was touched before is several times faster to write than new pages, and what never goes back to malloc
    never leaves holes in it.
    """

    def __init__(self) -> None:
        self._tensors: defaultdict[_Kind, list[torch.Tensor]] = defaultdict(list)
        self._collecting = False
        self._lock = threading.Lock()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """While weights are made: what is dropped is kept for `take`. What nobody took is given back at the end."""
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

    def drop(self, tensors: Iterable[torch.Tensor]) -> None:
        """Let go of tensors that nobody uses any more."""
        with self._lock:
            if self._collecting:
                for tensor in tensors:
                    self._tensors[tensor.shape, tensor.dtype, tensor.device].append(tensor)

    def take(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
        """A dropped tensor of this kind, its content arbitrary."""
        with self._lock:
            found = self._tensors.get((shape, dtype, device))
            return found.pop() if found else None


def give_back() -> None:
    """Return to the system what was freed. Takes some milliseconds.

    glibc keeps freed blocks of up to 32 MB for later, in an arena for each thread: where weights of a few megabytes
    come and go, a process then holds hundreds of megabytes more than it uses.
    """
    ctypes.CDLL(None).malloc_trim(0)
