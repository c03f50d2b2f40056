"""The CUDA stream on which an engine refits and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch

from runtime.engines.torch.calls_ahead import CallsAhead


class CallStream(Protocol):
    """A stream in which work runs in the order of its submission."""

    @property
    def handle(self) -> int:
        """The `cudaStream_t`."""

    def call(self) -> AbstractContextManager[None]:
        """Inside, torch submits to this stream. It waits for the work before, and work afterwards waits for it."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` submits, without running it. The result submits it again. Only inside of a call.

        Raises RuntimeError when something in `work` cannot be recorded.
        """


class CudaStream:
    """Not the default stream, because TensorRT would synchronize the device for each call on it."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._ahead = CallsAhead()

    @property
    def handle(self) -> int:
        return int(self._stream.cuda_stream)

    @contextmanager
    def call(self) -> Iterator[None]:
        before = torch.cuda.current_stream()
        self._ahead.begin()
        self._stream.wait_stream(before)
        try:
            with torch.cuda.stream(self._stream):
                yield
                self._ahead.end()
        finally:
            before.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU during the capture: the loader copies and merges weights.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay
