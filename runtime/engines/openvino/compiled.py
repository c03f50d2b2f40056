"""A graph with weights, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from runtime.artifacts.manifest import Manifest
from runtime.engines.openvino.exact_times import ExactTimes

_PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Compiled:
    """A compiled model and the parameters that stay outside of it. One thread at a time runs it.

    `manifest`: its inputs and outputs. `outside`: parameters that the engine applies itself (see `Manifest`).
    `nbytes`: its memory; the maker measures it. `times`: computes the inputs that the manifest does not have.
    """

    def __init__(
        self,
        compiled: Any,
        manifest: Manifest,
        outside: Mapping[str, torch.Tensor],
        first: Mapping[str, torch.Tensor],
        times: ExactTimes | None,
    ) -> None:
        """`compiled`: an `ov.CompiledModel`. `first`: inputs of its first call (see `first_call.py`), or nothing for a
        model of fixed sizes.
        """
        self.manifest, self.outside = manifest, outside
        self.precision = _PRECISIONS[compiled.get_property("INFERENCE_PRECISION_HINT").to_string()]
        self._request = compiled.create_infer_request()
        # Of its own: another compiled model of the graph may make its first call while this one runs.
        self._times = times.request() if times else None
        self.nbytes = 0
        if first:
            self.run(first)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name. `inputs`: all inputs of the graph."""
        given = {**inputs, **self._times.run(inputs)} if self._times else inputs
        self._request.infer(
            {name: value.contiguous().numpy() for name, value in given.items()}, share_inputs=True, share_outputs=True
        )
        names = (tensor.name for tensor in self.manifest.outputs)
        return {name: torch.from_numpy(self._request.get_tensor(name).data.copy()) for name in names}

    def evicted(self) -> None:
        """Its memory is freed when the last binding ends."""
