"""The TensorRT that is installed: `trt` is the module of TensorRT, or of TensorRT-RTX when TensorRT is missing.

Both have the same names for what is used here. `IS_RTX` marks what only one has. Use the module as `flavour.trt`.
Importing this raises FlavourMissing when neither is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.artifacts.plan_manifest import Flavour

__all__ = ["IS_RTX", "NAME", "VERSION", "FlavourMissing", "trt"]
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")


class FlavourMissing(ImportError):
    """Neither TensorRT nor TensorRT-RTX is installed."""

    def __init__(self) -> None:
        super().__init__("neither tensorrt nor tensorrt_rtx is installed: pip install '.[tensorrt-rtx]'")


def _find() -> tuple[Flavour, Any]:
    for name in _FLAVOURS:
        try:
            return name, import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise FlavourMissing


NAME, _module = _find()
VERSION: str = _module.__version__
IS_RTX = NAME == "tensorrt_rtx"
if TYPE_CHECKING:
    # mypy takes IS_RTX for a constant, true or false (deploy/typecheck_tensorrt.sh), and reads a stub in typings/.
    if IS_RTX:
        import tensorrt_rtx as trt
    else:
        import tensorrt as trt
else:
    trt = _module
