"""The largest face of a picture: InsightFace's steps, evaluated directly with ONNX's reference implementation."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from PIL import Image

Array = NDArray[Any]
SIDE, STRIDES, ANCHORS = 640, (8, 16, 32), 2
_ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@dataclass(frozen=True, eq=False)
class ReferenceFace:
    """aligned: [112, 112, 3]. crop: what CLIP's image encoder sees, of 224 x 224 pixels."""

    box: Array
    points: Array
    aligned: Array
    crop: Image.Image


def find_face(pack: Path, image: Image.Image) -> ReferenceFace:
    pixels = np.array(image.convert("RGB"))
    box, points = max(_detect(pack, pixels), key=lambda face: (face[0][2] - face[0][0]) * (face[0][3] - face[0][1]))
    small, large = (_warp(pixels, points, side) for side in (112, 224))
    return ReferenceFace(box, points, small, Image.fromarray(large))


def embed_face(pack: Path, aligned: Array) -> torch.Tensor:
    """[512], not normalized."""
    planes = (aligned.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5
    (embedding,) = _network(pack / "w600k_r50.onnx").run(None, {"input.1": planes})
    return torch.from_numpy(embedding[0])


@cache
def _network(path: Path) -> ReferenceEvaluator:
    return ReferenceEvaluator(str(path))


def _detect(pack: Path, pixels: Array) -> list[tuple[Array, Array]]:
    """The box and the points of the best anchor of each stride with a score of 0.5: the planted faces of one stride are
    one face, and those of two strides do not overlap."""
    height, width = pixels.shape[:2]
    scaled = (SIDE * height // max(height, width), SIDE * width // max(height, width))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    small = torch.nn.functional.interpolate(planes, scaled, mode="bilinear", align_corners=False).round()
    square = torch.zeros(1, 3, SIDE, SIDE)
    square[:, :, : scaled[0], : scaled[1]] = small
    outputs = _network(pack / "det_10g.onnx").run(None, {"input.1": ((square - 127.5) / 128).numpy()})
    found = []
    for place, stride in enumerate(STRIDES):
        scores, boxes, points = (outputs[place + 3 * part] for part in range(3))
        best = int(scores.reshape(-1).argmax())
        if scores.reshape(-1)[best] < 0.5:
            continue
        row, column = divmod(best // ANCHORS, SIDE // stride)
        centre = np.array([column * stride, row * stride], np.float32)
        near, far = boxes[best, :2] * stride, boxes[best, 2:] * stride
        box = np.concatenate([centre - near, centre + far])
        scale = scaled[0] / height
        found.append((box / scale, (centre + points[best].reshape(5, 2) * stride) / scale))
    return found


def _warp(pixels: Array, points: Array, side: int) -> Array:
    """The picture under Umeyama's similarity (1991) from the points to ArcFace's: bilinear, black outside."""
    targets = np.array(_ARCFACE) * side / 112
    source, middle, goal = points.astype(np.float64), points.mean(0), targets.mean(0)
    u, spread, vt = np.linalg.svd((targets - goal).T @ (source - middle) / 5)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ np.diag(signs) @ vt * (spread * signs).sum() / (source - middle).var(0).sum()
    inverse = np.linalg.inv(turn)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    places = (np.stack([x, y], -1) - goal) @ inverse.T + middle
    sizes = np.array([pixels.shape[1], pixels.shape[0]])
    grid = torch.from_numpy(2 * (places + 0.5) / sizes - 1)[None]
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    warped = torch.nn.functional.grid_sample(planes, grid, "bilinear", "zeros", align_corners=False)
    return warped[0].permute(1, 2, 0).round().numpy().astype(np.uint8)
