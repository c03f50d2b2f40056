"""InsightFace packs whose networks are damaged or hostile: each is refused, and the next pack works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.faces import process as processes
from runtime.faces.face import FaceError
from runtime.faces.onnx_model import OnnxModel
from runtime.faces.process import FaceProcess
from runtime.files.stored_file import StoredFile
from tests.tiny.face_pack import DETECTOR, EMBEDDER, detector, embedder, face_picture
from tests.unit.runtime.test_faces import go_on, pack_files
from tests.unit.runtime.tiny_checkpoints import digest

Model = Any  # onnx.ModelProto
PIXELS = np.array(face_picture(("green", 40, 30)))
FACE = np.zeros((112, 112, 3), np.uint8)


def elsewhere(tensor: TensorProto) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def with_external_weights(model: Model) -> None:
    elsewhere(model.graph.initializer[0])


def with_location_alone(model: Model) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def with_external_constant(model: Model) -> None:
    node = helper.make_node("Constant", [], ["unused"], value=numpy_helper.from_array(np.zeros(2, np.float32)))
    elsewhere(node.attribute[0].t)
    model.graph.node.append(node)


def with_external_constant_in_a_branch(model: Model) -> None:
    node = helper.make_node("Constant", [], ["inner"], value=numpy_helper.from_array(np.zeros(2, np.float32)))
    elsewhere(node.attribute[0].t)
    shown = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2])]
    branch = helper.make_graph([node], "branch", [], shown)
    model.graph.node.append(helper.make_node("If", ["condition"], ["any"], then_branch=branch, else_branch=branch))


def with_foreign_operator(model: Model) -> None:
    model.graph.node[0].domain = "com.example"


def with_foreign_operators_of_a_function(model: Model) -> None:
    model.opset_import.add(domain="com.example", version=1)


def with_other_outputs(model: Model) -> None:
    """Boxes of five numbers."""
    for tensor in model.graph.initializer:
        if tensor.name == "bbox_8.shape":
            tensor.CopyFrom(numpy_helper.from_array(np.array([-1, 2], np.int64), tensor.name))
        if tensor.name == "bbox_8.kernel":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((4, 3, 8, 8), np.float32), tensor.name))
        if tensor.name == "bbox_8.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), tensor.name))


def with_unfit_weights(model: Model) -> None:
    model.graph.initializer[0].dims[1] = 7


def with_short_weights(model: Model) -> None:
    model.graph.initializer[0].raw_data = b"\0" * 8


def with_endless_loop(model: Model) -> None:
    """A loop whose result is added to the first input."""

    def scalar(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [])

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [scalar("i", TensorProto.INT64), scalar("go", TensorProto.BOOL), scalar("x", TensorProto.FLOAT)],
        [scalar("still", TensorProto.BOOL), scalar("y", TensorProto.FLOAT)],
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2**62, np.int64), "count"),
            numpy_helper.from_array(np.array(True), "condition"),
        ]
    )
    nodes = [
        helper.make_node("ReduceMean", ["input.1"], ["begin"], keepdims=0),
        helper.make_node("Loop", ["count", "condition", "begin"], ["end"], body=body),
        helper.make_node("Add", ["input.1", "end"], ["looped"]),
    ]
    _before(model, nodes, "looped")


def with_huge_tensor(model: Model) -> None:
    """The input, repeated to 2 TB and averaged again."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1 << 12, 1 << 12], np.int64), "many"))
    nodes = [
        helper.make_node("Tile", ["input.1", "many"], ["tiled"]),
        helper.make_node("ReduceMean", ["tiled"], ["mean"], keepdims=1),
        helper.make_node("Add", ["input.1", "mean"], ["added"]),
    ]
    _before(model, nodes, "added")


def _before(model: Model, nodes: list[onnx.NodeProto], result: str) -> None:
    """Put nodes between the input and the network."""
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "input.1":
                node.input[place] = result
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])


REFUSED: dict[Callable[[Model], None], str] = {
    with_external_weights: "weights in other files",
    with_location_alone: "weights in other files",
    with_external_constant: "weights in other files",
    with_external_constant_in_a_branch: "weights in other files",
    with_foreign_operator: "operators of com.example",
    with_foreign_operators_of_a_function: "operators of com.example",
}
FAILING: dict[Callable[[Model], None], str] = {
    with_other_outputs: "at stride 8: expected",
    with_short_weights: "OpenVINO cannot run a detector",
    with_endless_loop: "need more than 3 s",
    with_unfit_weights: "OpenVINO cannot run a detector",
    with_huge_tensor: "OpenVINO cannot run a detector|need more than|ended the process",
}


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaceProcess]:
    monkeypatch.setattr(processes, "_SECONDS", 3.0)
    process = FaceProcess(threads=1)
    yield process
    process.close()


def write(folder: Path, *, detecting: Model | bytes, embedding: Model | bytes) -> list[StoredFile]:
    paths = [folder / DETECTOR, folder / EMBEDDER]
    for path, content in zip(paths, (detecting, embedding), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return [digest(path) for path in paths]


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_a_model_that_names_files_or_programs_is_refused(tmp_path: Path, change: Callable[[Model], None]) -> None:
    model = detector()
    assert OnnxModel(write(tmp_path, detecting=model, embedding=b"")[0].path).task == "detect"
    change(model)
    with pytest.raises(FaceError, match=REFUSED[change]):
        OnnxModel(write(tmp_path, detecting=model, embedding=b"")[0].path)


@pytest.mark.parametrize(
    "change",
    [*list(FAILING)[:3], *(pytest.param(change, marks=pytest.mark.verify) for change in list(FAILING)[3:])],
    ids=lambda change: change.__name__,
)
def test_after_a_hostile_detector_the_next_pack_works(
    faces: FaceProcess, tiny: Path, tmp_path: Path, change: Callable[[Model], None]
) -> None:
    model = detector()
    change(model)
    with pytest.raises(FaceError, match=FAILING[change]):
        faces.load(write(tmp_path, detecting=model, embedding=embedder(5)), go_on)
        faces.detect(PIXELS, go_on)
    faces.load(pack_files(tiny), go_on)
    assert faces.detect(PIXELS, go_on)


FILES = {
    "no ONNX model": b"\xff" * 99,
    "lacks a network": b"",
    "a detector": embedder(5).SerializeToString(),
}


@pytest.mark.parametrize("message", FILES)
def test_another_file_is_no_detector(faces: FaceProcess, tmp_path: Path, message: str) -> None:
    with pytest.raises(FaceError, match=message):
        faces.load(write(tmp_path, detecting=FILES[message], embedding=embedder(5)), go_on)


def test_an_embedding_that_is_not_finite_is_refused(faces: FaceProcess, tmp_path: Path) -> None:
    model = embedder(5)
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.full(512, np.nan, np.float32), "bias"))
    faces.load(write(tmp_path, detecting=detector(), embedding=model), go_on)
    with pytest.raises(FaceError, match="finite"):
        faces.embed(FACE, go_on)


def test_a_network_that_scales_its_input_gets_pixels(faces: FaceProcess, tmp_path: Path) -> None:
    """As InsightFace tells its first networks, which subtract and multiply at their beginning."""
    model = embedder(5)
    for name, value in (("half", 127.5), ("share", 1 / 127.5)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    nodes = [
        helper.make_node("Sub", ["input.1", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "share"], ["scaled"]),
    ]
    _before(model, nodes, "scaled")
    faces.load(write(tmp_path, detecting=detector(), embedding=model), go_on)
    face = np.random.default_rng(0).integers(0, 256, FACE.shape, np.uint8)
    found = faces.embed(face, go_on)
    faces.load(write(tmp_path.parent, detecting=detector(), embedding=embedder(5)), go_on)
    np.testing.assert_allclose(found, faces.embed(face, go_on), atol=1e-4)
