"""Makes the artifact of one architecture: builds its network, traces it, and removes the weights."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable
from importlib.metadata import version

import onnx

from export.axes import NamedAxes, shown_axes
from export.configurations import CONFIGURATIONS, OPSET, NetworkConfig
from export.errors import ExportError
from export.example_inputs import INTEGER_INPUTS
from export.flat import FlatNetwork, remove_token_embedding
from export.low_rank import LowRankInputs
from export.made import Made
from export.trace import allocate, trace
from export.weightless import make_weightless
from runtime.artifacts.artifact import Artifact
from runtime.artifacts.manifest import EXPORTER_VERSION, ArtifactKey, GraphTensor, Manifest
from runtime.networks.architecture import Architecture, ArchitectureError
from runtime.networks.build import build, parameters

_PACKAGES = ("torch", "onnx", "optimum", "diffusers", "transformers")


def make_artifact(
    key: ArtifactKey,
    architecture: Architecture,
    show: Callable[[str], None],
    configuration: type[NetworkConfig] | None = None,
) -> Made:
    """Export an architecture. Calls `show` with the name of each phase. Raises ExportError.

    `configuration`: the one of the key's kind, or one with fewer inputs, as a benchmark takes it.
    """
    show("builds the network")
    try:
        network = build(architecture)
    except ArchitectureError as error:
        raise ExportError(str(error)) from error
    outside = remove_token_embedding(key.kind, network)
    allocate(network)
    low_rank = LowRankInputs(network.weights, key.low_rank)
    config = (configuration or CONFIGURATIONS[key.kind])(architecture, network, low_rank)
    flat = FlatNetwork(key.kind, network, low_rank, tuple(config.input_axes), tuple(config.output_axes))
    show("traces the network")
    model = trace(flat, config)
    show("removes the weights")
    shapes = {name: parameter.shape for name, parameter in parameters(network).items()}
    make_weightless(model, tuple(config.input_axes), config.output_axes, flat.prefix, shapes)
    show("compresses the graph")
    graph = model.SerializeToString(deterministic=True)
    compressed = lzma.compress(graph, preset=9)
    return Made(Artifact(_describe(key, config, model, outside, graph, compressed), graph), compressed)


def _describe(
    key: ArtifactKey,
    config: NetworkConfig,
    model: onnx.ModelProto,
    outside: tuple[str, ...],
    graph: bytes,
    compressed: bytes,
) -> Manifest:
    return Manifest(
        exporter=EXPORTER_VERSION,
        kind=key.kind,
        architecture=key.architecture,
        low_rank=key.low_rank,
        opset=OPSET,
        versions={package: version(package) for package in _PACKAGES},
        inputs=_tensors(config.input_axes),
        outputs=_tensors(config.output_axes),
        initializers=len(model.graph.initializer),
        outside=outside,
        graph_sha256=hashlib.sha256(compressed).hexdigest(),
        graph_bytes=len(graph),
    )


def _tensors(axes: NamedAxes) -> tuple[GraphTensor, ...]:
    return tuple(
        GraphTensor(name=name, dtype="int64" if name in INTEGER_INPUTS else "float32", axes=shown_axes(found))
        for name, found in axes.items()
    )
