"""The real builder of TensorRT-RTX, on a machine without a GPU: each weight of a graph is refittable by its name."""

from __future__ import annotations

import time
from typing import Any

import onnx
import pytest

from export.errors import ExportError
from export.tensorrt.build_plan import build_for_targets
from export.tensorrt.parse import parse
from export.tensorrt.placeholders import check_refittable, replace_weights
from export.tensorrt.precision import cast_graph
from export.tensorrt.profiles import default_profiles, input_shapes, read_profiles
from runtime.artifacts.manifest import low_rank_modes
from runtime.networks.architecture import NetworkKind
from tests.unit.export.conftest import Graphs
from tests.unit.export.networks import ALL_NETWORKS, SMALL_UNET, SMALL_UNETS
from tests.unit.export.tensorrt.plans import PROFILE

# Each low-rank input of a UNet has a rank of its own, for which the builder takes long: 45 s of a processor for a small
# UNet, 14 minutes for the tiny SDXL's.
_BUILT = [name for name in ALL_NETWORKS if name in SMALL_UNETS or not name.endswith(" unet")]
NAMES = [name if name == SMALL_UNET else pytest.param(name, marks=pytest.mark.verify) for name in _BUILT]
_HEADER_OF_TARGETS, _SM89 = 32, 8  # the byte of a plan that has a bit for each target, and the bit of 8.9


def _model(graphs: Graphs, name: str) -> onnx.ModelProto:
    model = onnx.load_from_string(graphs.artifact(name, "linear").graph)
    cast_graph(model, "float16")
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_has_each_weight_by_its_name(graphs: Graphs, name: str, record_property: Any) -> None:
    artifact, architecture = graphs.artifact(name, "linear"), graphs.network(name).architecture
    assert artifact.manifest.low_rank == ("linear" if "linear" in low_rank_modes(architecture.kind) else "none")
    model = _model(graphs, name)
    begun = time.monotonic()
    plan = build_for_targets(model, input_shapes(artifact.manifest, architecture, PROFILE), ["8.9"])
    record_property("seconds", round(time.monotonic() - begun, 1))
    record_property("plan_bytes", len(plan))
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == artifact.manifest.initializers
    assert not [name for name in names if name.encode() not in plan]
    assert not [tensor.name for tensor in artifact.manifest.inputs if tensor.name.encode() not in plan]
    assert plan[_HEADER_OF_TARGETS] == _SM89


@pytest.mark.verify
@pytest.mark.parametrize("kind", ["vae_encoder", "vae_decoder"])
def test_the_default_profile_of_a_vae_can_be_built(graphs: Graphs, kind: NetworkKind) -> None:
    """Its smallest picture is one latent, as a tile at the edge of a picture can be."""
    artifact, architecture = graphs.artifact(f"sd15 {kind}", "none"), graphs.network(f"sd15 {kind}").architecture
    profile = read_profiles(default_profiles([architecture]))[kind]
    assert build_for_targets(
        _model(graphs, f"sd15 {kind}"), input_shapes(artifact.manifest, architecture, profile), ["8.9"]
    )


def test_all_weights_are_replaced_by_placeholders(graphs: Graphs) -> None:
    model = _model(graphs, "sd15 vae_decoder")
    parsed = parse(model, None)
    replace_weights(parsed, model)
    check_refittable(parsed, [tensor.name for tensor in model.graph.initializer])
    with pytest.raises(ExportError, match=r"1 of 1 weights cannot be refitted by name: \['no.such.weight'\]"):
        check_refittable(parsed, ["no.such.weight"])


def test_a_weight_without_a_layer_is_an_error(graphs: Graphs) -> None:
    model = _model(graphs, "sd15 vae_decoder")
    parsed = parse(model, None)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    name = convolution.input[1]
    convolution.input[1] = "another"
    with pytest.raises(ExportError, match="weights have no layer") as error:
        replace_weights(parsed, model)
    assert name in str(error.value)


def test_a_graph_that_tensorrt_cannot_parse_is_an_error(graphs: Graphs) -> None:
    model = _model(graphs, "sd15 vae_decoder")
    model.graph.node[-2].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"cannot parse the graph: .*NoSuchOperator"):
        parse(model, None)


def test_an_unknown_target_is_an_error(graphs: Graphs) -> None:
    name = "sd15 vae_decoder"
    shapes = input_shapes(graphs.artifact(name, "none").manifest, graphs.network(name).architecture, PROFILE)
    with pytest.raises(ExportError, match=r"builds no plans for 9\.0; expected .*'8\.9'"):
        build_for_targets(_model(graphs, name), shapes, ["9.0"])
