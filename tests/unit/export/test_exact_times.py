"""Timesteps beside a model in bfloat16: one compiled model of a graph is prepared while another one runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import openvino as ov
import pytest
import torch
from openvino import opset13 as operators

from runtime.engines.openvino.compiled import Compiled
from runtime.engines.openvino.core import core
from runtime.engines.openvino.exact_times import take_times

_CALLS = 1000
_TOLERANCE = 0.02  # the large model may compute in bfloat16


@pytest.fixture
def model() -> Any:
    """out = sin(t) * cos(t)."""
    t = operators.parameter([-1], ov.Type.f32, "t")
    t.output(0).set_names({"t"})
    out = operators.multiply(operators.sin(t), operators.cos(t)).output(0)
    out.set_names({"out"})
    return ov.Model([out], [t])


def test_the_values_are_those_of_float32(model: Any) -> None:
    times, t = take_times(model), torch.tensor([501.0, 999.0])
    assert times is not None
    sine, cosine = times.request().run({"t": t}).values()
    torch.testing.assert_close(sine, t.sin(), rtol=0, atol=1e-5)
    torch.testing.assert_close(cosine, t.cos(), rtol=0, atol=1e-5)


def test_compiled_models_of_one_graph_run_in_two_threads(model: Any) -> None:
    """The loader makes the first call of one while the step loop runs another one."""
    times, manifest = take_times(model), SimpleNamespace(outputs=[SimpleNamespace(name="out")])
    both = [
        Compiled(core().compile_model(model, "CPU"), manifest, {}, {}, times)  # type: ignore[arg-type]
        for _ in range(2)
    ]

    def count_wrong(number: int) -> int:
        t = torch.full((1 + number,), 100.0 * (1 + number))
        expected = t.sin() * t.cos()
        found = (both[number].run({"t": t})["out"] for _ in range(_CALLS))
        return sum(out.shape != t.shape or bool(((out - expected).abs() > _TOLERANCE).any()) for out in found)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(count_wrong, range(2))) == [0, 0]
