"""The weights in a loaded plan: replaced by their names, from tensors that are on the GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from runtime.engines.contents import Contents, HeldContents
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.messages import MESSAGES
from runtime.engines.tensorrt.plan_error import PlanError

DTYPES = {
    torch.float32: trt.DataType.FLOAT,
    torch.float16: trt.DataType.HALF,
    torch.bfloat16: trt.DataType.BF16,
    torch.int64: trt.DataType.INT64,
}


class RefitError(PlanError):
    """A refit failed. A part of the weights may have been replaced, so the plan must be loaded again."""


class PlanWeights:
    """`names`: the parameters that the plan takes. `refits`: how many there were. One thread at a time uses it."""

    def __init__(self, engine: trt.ICudaEngine, stream: CallStream) -> None:
        self._refitter = flavour.trt.Refitter(engine, MESSAGES)
        self._stream = stream
        self.names = frozenset(self._refitter.get_all_weights())
        self.refits = 0
        self._held = HeldContents(self.names)

    def hold(self, contents: Contents) -> None:
        """Refit what differs, on the stream. The tensors of `contents` must exist until the stream has run.

        They have the plan's dtype, and are contiguous. Raises RefitError.
        """
        self._held.replace(contents, lambda names: self._refit(self.names.intersection(names), contents.tensors))

    def _refit(self, names: Collection[str], tensors: Mapping[str, torch.Tensor]) -> None:
        """A refit replaces every weight that is set. So none stays set afterwards."""
        given: set[str] = set()
        missing = names
        while missing:
            for name in missing:
                self._set(name, tensors[name])
            given.update(missing)
            # TensorRT may have combined a weight with others, which it then needs too.
            missing = [name for name in self._refitter.get_missing_weights() if name not in given]
        self.refits += bool(given)
        if given and not self._refitter.refit_cuda_engine_async(self._stream.handle):
            raise RefitError(f"a refit of {len(given)} weights failed: {MESSAGES.last_error}")
        for name in given:
            self._refitter.unset_named_weights(name)

    def _set(self, name: str, tensor: torch.Tensor) -> None:
        assert tensor.is_contiguous(), name  # TensorRT gets an address without strides
        weights = flavour.trt.Weights(DTYPES[tensor.dtype], tensor.data_ptr(), tensor.numel())
        if not self._refitter.set_named_weights(name, weights, flavour.trt.TensorLocation.DEVICE):
            raise RefitError(f"{name}: the plan takes no {tensor.dtype} of {tensor.numel()} numbers")
