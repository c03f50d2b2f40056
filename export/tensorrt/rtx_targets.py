"""The GPUs that TensorRT-RTX builds plans for without one."""

from __future__ import annotations

from collections.abc import Sequence

from export.errors import ExportError
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import trt


def capabilities(targets: Sequence[str]) -> list[trt.ComputeCapability]:
    """Of names such as `8.9`. Raises ExportError."""
    return [_capability(target) for target in targets]


def set_targets(config: trt.IBuilderConfig, targets: Sequence[trt.ComputeCapability]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(target, index)


def _capability(target: str) -> trt.ComputeCapability:
    known = trt.ComputeCapability.__members__
    found = known.get(f"SM{target.replace('.', '')}")
    if found is None:
        numbers = [name.removeprefix("SM") for name in known if name.startswith("SM")]
        names = [f"{number[:-1]}.{number[-1]}" for number in numbers]
        raise ExportError(f"{flavour.NAME} {flavour.VERSION} builds no plans for {target}; expected {names}")
    return found
