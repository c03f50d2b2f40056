"""An InsightFace pack with the inputs and outputs of buffalo_l, planted so that it finds red and green spots as faces.

The detector finds the middle of a red spot at stride 8, as a small face, and that of a green spot at stride 16, as a
large face. The embedder has random weights.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Array = NDArray[Any]
DETECTOR, EMBEDDER = "det_10g.onnx", "w600k_r50.onnx"
SIDE, EMBEDDING = 112, 512
OPSET = 11
# By stride: the channel whose excess is a face, and how far the box reaches from the middle, in strides.
FACES: dict[int, tuple[int, float]] = {8: (0, 9.0), 16: (1, 8.0)}
STRIDES, ANCHORS = (8, 16, 32), 2
# The points from the middle of the face, in shares of the distance to the box's edge: not quite symmetric, so turned.
POINTS = np.array([[-0.40, -0.33], [0.36, -0.41], [0.02, 0.05], [-0.30, 0.45], [0.33, 0.40]], np.float32)
_LOUDNESS, _EXCESS = 10.0, 1.4  # a spot's middle has an excess of 2, grey has 0


def write_face_pack(folder: Path, seed: int = 5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(detector(), folder / DETECTOR)
    onnx.save(embedder(seed), folder / EMBEDDER)
    onnx.save(_other_network(), folder / "genderage.onnx")


def face_picture(*spots: tuple[str, int, int], seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture with faces: their colours, `red` or `green`, and their middles."""
    noise = np.random.default_rng(seed).integers(0, 120, (8, 12, 3), np.uint8)
    pixels = np.array(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), np.float64)
    y, x = np.mgrid[: size[1], : size[0]]
    for colour, column, row in spots:
        near = np.clip(1.2 - np.hypot(x - column, y - row) / 9, 0, 1)[..., None]
        pixels = pixels * (1 - near) + near * 255 * (np.arange(3) == ("red", "green").index(colour))
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def detector() -> onnx.ModelProto:
    """[1, 3, H, W] -> for each stride scores [n, 1], then boxes [n, 4], then points [n, 10], as SCRFD's."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    outputs: list[list[str]] = [[], [], []]
    for stride in STRIDES:
        parts = (_scores(stride), _boxes(stride), _points(stride))
        for kind, (kernel, bias) in enumerate(parts):
            width = len(bias) // ANCHORS
            name = f"{('score', 'bbox', 'kps')[kind]}_{stride}"
            weights += [_tensor(f"{name}.kernel", kernel), _tensor(f"{name}.bias", bias)]
            weights.append(_tensor(f"{name}.shape", np.array([-1, width], np.int64)))
            nodes += [
                helper.make_node(
                    "Conv", ["input.1", f"{name}.kernel", f"{name}.bias"], [f"{name}.map"], strides=[stride, stride]
                ),
                helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.last", f"{name}.shape"], [f"{name}.flat" if not kind else name]),
            ]
            if not kind:
                nodes.append(helper.make_node("Sigmoid", [f"{name}.flat"], [name]))
            outputs[kind].append(name)
    given = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])
    shown = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for names, width in zip(outputs, (1, 4, 10), strict=True)
        for name in names
    ]
    return _model(helper.make_graph(nodes, "detector", [given], shown, weights))


def embedder(seed: int) -> onnx.ModelProto:
    """[n, 3, 112, 112] -> [n, 512]."""
    random = np.random.default_rng(seed)
    features = 4 * (SIDE // 16) ** 2
    weights = [
        _tensor("kernel", random.normal(0, 0.06, (4, 3, 16, 16)).astype(np.float32)),
        _tensor("slope", np.full((4, 1, 1), 0.25, np.float32)),
        _tensor("weight", random.normal(0, 0.3, (EMBEDDING, features)).astype(np.float32)),
        _tensor("bias", random.normal(0, 0.3, EMBEDDING).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("Conv", ["input.1", "kernel"], ["map"], strides=[16, 16]),
        helper.make_node("PRelu", ["map", "slope"], ["kept"]),
        helper.make_node("Flatten", ["kept"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["683"], transB=1),
    ]
    given = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    shown = helper.make_tensor_value_info("683", TensorProto.FLOAT, ["n", EMBEDDING])
    return _model(helper.make_graph(nodes, "embedder", [given], [shown], weights))


def _other_network() -> onnx.ModelProto:
    """Packs have further networks, which find no identity."""
    given = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 96, 96])
    shown = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["n", 3, 1, 1])
    return _model(
        helper.make_graph([helper.make_node("GlobalAveragePool", ["data"], ["fc1"])], "other", [given], [shown])
    )


def _scores(stride: int) -> tuple[Array, Array]:
    """The second anchor of a place, and all of strides without faces, find nothing."""
    kernel = np.zeros((ANCHORS, 3, stride, stride), np.float32)
    bias = np.full(ANCHORS, -10.0, np.float32)
    if stride in FACES:
        own = FACES[stride][0]
        kernel[0] = -0.5 * _LOUDNESS / stride**2
        kernel[0, own] = _LOUDNESS / stride**2
        kernel[0, 2] = -0.5 * _LOUDNESS / stride**2
        bias[0] = -_LOUDNESS * _EXCESS
    return kernel, bias


def _boxes(stride: int) -> tuple[Array, Array]:
    reach = FACES.get(stride, (0, 1.0))[1]
    return np.zeros((4 * ANCHORS, 3, stride, stride), np.float32), np.full(4 * ANCHORS, reach, np.float32)


def _points(stride: int) -> tuple[Array, Array]:
    reach = FACES.get(stride, (0, 1.0))[1]
    bias = np.tile((reach * POINTS).reshape(-1), ANCHORS).astype(np.float32)
    return np.zeros((10 * ANCHORS, 3, stride, stride), np.float32), bias


def _tensor(name: str, values: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=6)
