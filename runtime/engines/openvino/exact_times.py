"""Sines and cosines of timesteps in float32, beside a model that computes in bfloat16.

In bfloat16, OpenVINO's CPU plugin rounds timesteps: 501 becomes 500, and 999 becomes 1000. No hint exempts a part of a
model (seen with 2026.4.1). So a small model of its own computes them, and the large one takes them as inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import openvino as ov
import torch
from openvino import opset13 as operators

from runtime.engines.openvino.core import core

_OPERATORS = ("Sin", "Cos")  # networks of Stable Diffusion compute these of timesteps and `time_ids` only
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def take_times(model: Any) -> ExactTimes | None:
    """Take that part out of an `ov.Model`, which is changed. None: the model has none."""
    return ExactTimes(model) if _found(model) else None


class ExactTimes:
    """The part of a model that computes `_OPERATORS`. In the model, an input replaces each of their outputs.

    One thread at a time uses it.
    """

    def __init__(self, model: Any) -> None:
        outputs = [operation.output(0) for operation in _found(model.clone())]
        self._model = ov.Model(outputs, _parameters(outputs))
        self._names = [f"exact_time_{number}" for number in range(len(outputs))]
        for name, operation in zip(self._names, _found(model), strict=True):
            output = operation.output(0)
            parameter = operators.parameter(output.get_partial_shape(), output.get_element_type(), name)
            parameter.output(0).set_names({name})
            output.replace(parameter.output(0))
            model.add_parameters([parameter])

    def shapes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """The shapes of the added inputs. `shapes`: of all others, -1 for any size."""
        model = self._model.clone()
        model.reshape({name: ov.PartialShape(list(shapes[name])) for name in _names(model.inputs)})
        return {name: list(output.get_shape()) for name, output in zip(self._names, model.outputs, strict=True)}

    def request(self) -> ExactTimesRequest:
        """A request of its own for each thread that makes calls."""
        return ExactTimesRequest(self._compiled, self._names)

    @cached_property
    def _compiled(self) -> Any:
        return core().compile_model(self._model, "CPU", _FLOAT32)


class ExactTimesRequest:
    """Computes the added inputs of a model's calls. One thread at a time uses it."""

    def __init__(self, compiled: Any, names: Sequence[str]) -> None:
        """`compiled`: an `ov.CompiledModel`. `names`: of its outputs."""
        self._request, self._names = compiled.create_infer_request(), names
        self._inputs = _names(compiled.inputs)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The added inputs. `inputs`: all others."""
        self._request.infer({name: inputs[name].contiguous().numpy() for name in self._inputs})
        return {
            name: torch.from_numpy(self._request.get_output_tensor(place).data.copy())
            for place, name in enumerate(self._names)
        }


def _found(model: Any) -> list[Any]:
    return [operation for operation in model.get_ordered_ops() if operation.get_type_name() in _OPERATORS]


def _parameters(outputs: Sequence[Any]) -> list[Any]:
    """The inputs of a model that the outputs depend on."""
    found, open_nodes, seen = [], [output.get_node() for output in outputs], set()
    while open_nodes:
        node = open_nodes.pop()
        name = node.get_name()  # of each node its own
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() == "Parameter":
            found.append(node)
        open_nodes += [value.get_source_output().get_node() for value in node.inputs()]
    return found


def _names(values: Sequence[Any]) -> list[str]:
    return [value.get_any_name() for value in values]
