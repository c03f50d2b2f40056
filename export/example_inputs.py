"""Example inputs for tracing, made from the axes of the inputs."""

from __future__ import annotations

from typing import Any

from optimum.utils.input_generators import DummyInputGenerator

from export.axes import NamedAxes, example_shape

INTEGER_INPUTS = frozenset({"end"})  # all other inputs are float32


class AxesInputGenerator(DummyInputGenerator):
    """optimum's generator for any input whose axes are known."""

    def __init__(self, axes: NamedAxes) -> None:
        self.SUPPORTED_INPUT_NAMES = tuple(axes)
        self._axes = axes

    def supports_input(self, input_name: str) -> bool:
        return input_name in self._axes  # optimum compares beginnings: `t` would support `text`

    def generate(
        self, input_name: str, framework: str = "pt", int_dtype: str = "int64", float_dtype: str = "fp32"
    ) -> Any:
        shape = example_shape(self._axes[input_name])
        if input_name in INTEGER_INPUTS:
            return self.random_int_tensor(shape, max_value=2, framework=framework, dtype=int_dtype)
        return self.random_float_tensor(shape, framework=framework, dtype=float_dtype)
