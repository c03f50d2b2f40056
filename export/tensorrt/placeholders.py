"""Replaces the weights of a parsed network by null placeholders, which have a name, a dtype and a size alone.

TensorRT-RTX builds a refittable plan without a GPU only from these. A layer takes them only when it is made. So each
constant and each convolution of the parsed network is made again, under its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx

from export.errors import ExportError
from export.tensorrt.parse import ParsedNetwork
from runtime.engines.tensorrt.flavour import trt

_REPLACED = "replaced/"  # begins the names of what was replaced


def replace_weights(parsed: ParsedNetwork, model: onnx.ModelProto) -> None:
    """Change the network of `parsed`, which was parsed from `model`, in place. Raises ExportError."""
    _Replacement(parsed, model).run()


def check_refittable(parsed: ParsedNetwork, names: Collection[str]) -> None:
    """Raises ExportError when not all weights of these names can be refitted."""
    missing = [name for name in names if not parsed.network.are_weights_marked_refittable(name)]
    if missing:
        raise ExportError(f"{len(missing)} of {len(names)} weights cannot be refitted by name: {missing[:3]}")


class _Replacement:
    def __init__(self, parsed: ParsedNetwork, model: onnx.ModelProto) -> None:
        self._network: trt.INetworkDefinition = parsed.network
        self._weights = parsed.weights
        # A layer has the name of its node. The initializers of a convolution: kernel, and bias if it has one.
        self._of_convolution = {
            node.name: [name for name in node.input[1:] if name in parsed.weights]
            for node in model.graph.node
            if node.op_type == "Conv" and node.input[1] in parsed.weights
        }
        self._users: dict[str, list[tuple[trt.ILayer, int]]] = defaultdict(list)
        self._placed: set[str] = set()

    def run(self) -> None:
        layers = [self._network.get_layer(index) for index in range(self._network.num_layers)]
        for layer in layers:
            for place in range(layer.num_inputs):
                if (tensor := layer.get_input(place)) is not None:
                    self._users[tensor.name].append((layer, place))
        for layer in layers:
            # The bindings return each layer as one of the base class.
            if layer.type == trt.LayerType.CONSTANT and layer.name in self._weights:
                layer.__class__ = trt.IConstantLayer
                assert isinstance(layer, trt.IConstantLayer)
                self._replace_constant(layer)
            elif layer.type == trt.LayerType.CONVOLUTION and self._of_convolution.get(layer.name):
                layer.__class__ = trt.IConvolutionLayer
                assert isinstance(layer, trt.IConvolutionLayer)
                self._replace_convolution(layer, self._of_convolution[layer.name])
        if missing := sorted(self._weights.keys() - self._placed):
            raise ExportError(f"{len(missing)} of {len(self._weights)} weights have no layer: {missing[:3]}")

    def _replace_constant(self, old: trt.IConstantLayer) -> None:
        name = old.name
        self._free(name)
        new = self._network.add_constant(old.shape, self._null(name))
        self._name(new.weights, name)
        self._exchange(old, new)

    def _replace_convolution(self, old: trt.IConvolutionLayer, names: list[str]) -> None:
        source, (kernel, *bias) = old.get_input(0), names
        for name in names:
            self._free(name)
        no_bias = trt.Weights(self._weights[kernel].dtype)
        new = self._network.add_convolution_nd(
            source,
            old.num_output_maps,
            old.kernel_size_nd,
            self._null(kernel),
            self._null(bias[0]) if bias else no_bias,
        )
        new.stride_nd, new.dilation_nd, new.num_groups = old.stride_nd, old.dilation_nd, old.num_groups
        new.pre_padding, new.post_padding = old.pre_padding, old.post_padding
        self._name(new.kernel, kernel)
        if bias:
            self._name(new.bias, bias[0])
        self._users[source.name].append((new, 0))
        self._exchange(old, new)

    def _free(self, name: str) -> None:
        """Give the parsed weight another name, unless a layer before took it."""
        if name not in self._placed and not self._network.set_weights_name(
            self._weights[name].descriptor, _REPLACED + name
        ):
            raise ExportError(f"{name} is no weight of the network")

    def _null(self, name: str) -> trt.Weights:
        return self._weights[name]._replace(address=0).descriptor

    def _name(self, placed: trt.Weights | npt.NDArray[np.generic], name: str) -> None:
        """Name a placeholder. `placed`: as a layer returns it, an array if numpy has its dtype."""
        if isinstance(placed, np.ndarray):
            placed = self._weights[name]._replace(address=placed.__array_interface__["data"][0]).descriptor
        if not self._network.set_weights_name(placed, name):
            raise ExportError(f"the placeholder of {name} cannot be named")
        self._placed.add(name)

    def _exchange(self, old: trt.ILayer, new: trt.ILayer) -> None:
        """Let all users of a layer's output read the new layer's."""
        before, after = old.get_output(0), new.get_output(0)
        old.name, new.name = _REPLACED + old.name, old.name
        for user, place in self._users[before.name]:
            user.set_input(place, after)
        self._users[after.name] = self._users[before.name]
        outputs = [self._network.get_output(index).name for index in range(self._network.num_outputs)]
        if before.name in outputs:
            self._network.unmark_output(before)
            before.name, after.name = _REPLACED + before.name, before.name
            self._network.mark_output(after)
