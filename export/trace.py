"""Traces a network into an ONNX graph whose inputs are the network's inputs and, after them, its parameters."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from export.axes import NamedAxes, dynamic_names
from export.configurations import OPSET, NetworkConfig
from export.flat import FlatNetwork
from runtime.networks.build import parameters
from runtime.networks.network import Network


def allocate(network: Network) -> None:
    """Give a network of `build` parameters in memory, without values: tracing on the meta device fails.

    The memory is not touched before it is read, and then reads as zeros, so a large network takes little of it.
    """
    for module, attribute, shape in parameters(network).values():
        module._parameters[attribute] = nn.Parameter(torch.empty(shape), requires_grad=False)


def trace(flat: FlatNetwork, config: NetworkConfig) -> onnx.ModelProto:
    """The graph, with all parameters of `flat` under their own names.

    torch's newer exporter folds constants and renames parameters, so this is the older one, without folding. A flag
    `training` of the outermost module keeps it from merging equal parameters; the network itself is in evaluation mode.
    """
    example = config.generate_dummy_inputs(framework="pt")
    flat.training = True
    with torch.no_grad(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "traced.onnx"
        warnings.simplefilter("ignore")  # of sizes that become constants; tests run the graphs with other sizes
        torch.onnx.export(
            flat,
            tuple(example.values()),
            traced,
            input_names=list(config.input_axes),
            output_names=list(config.output_axes),
            dynamic_axes=_dynamic_axes({**config.input_axes, **config.output_axes}),
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=False,
            export_params=False,
            keep_initializers_as_inputs=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
        return onnx.load(traced)


def _dynamic_axes(axes: NamedAxes) -> dict[str, dict[int, str]]:
    return {name: dynamic_names(found) for name, found in axes.items()}
