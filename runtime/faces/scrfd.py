"""Reads the outputs of SCRFD (arXiv 2105.04714), the network that finds faces in InsightFace's packs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.faces.face import POINTS, Array, Face, FaceError

OUTPUTS = 9  # for each stride the scores, then for each one the boxes, then for each one the points
LARGEST_STRIDE = 32
MOST_SIDE = 1280  # of a picture; published detectors take 640
_STRIDES = (8, 16, LARGEST_STRIDE)
_ANCHORS = 2  # at each place
_LOWEST_SCORE = 0.5
_MOST_OVERLAP = 0.4  # of two faces: the intersection of their boxes over the union
_MOST_FACES = 1000  # a hostile network finds a face at each place


def read_faces(outputs: Sequence[Array], side: int) -> list[Face]:
    """The faces in a picture [side, side, 3], the best score first. Raises FaceError for outputs of other sizes."""
    found = [_at_stride(outputs, place, stride, side) for place, stride in enumerate(_STRIDES)]
    scores, boxes, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    numbers = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    chosen = np.flatnonzero((scores >= _LOWEST_SCORE) & numbers)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:_MOST_FACES]
    kept = [chosen[place] for place in _distinct(boxes[chosen])]
    return [Face(boxes[place], points[place], float(scores[place])) for place in kept]


def _at_stride(outputs: Sequence[Array], place: int, stride: int, side: int) -> tuple[Array, Array, Array]:
    """Scores [n], boxes [n, 4] and points [n, 5, 2] of all anchors of a stride. They are distances from the anchor."""
    count = len(_STRIDES)
    scores, boxes, points = (outputs[place + part * count] for part in range(3))
    anchors = _ANCHORS * (side // stride) ** 2
    if (scores.size, boxes.size, points.size) != (anchors, 4 * anchors, 2 * POINTS * anchors):
        raise FaceError(
            f"its detector gives {scores.size}, {boxes.size} and {points.size} values at stride {stride}: expected "
            f"{anchors}, {4 * anchors} and {2 * POINTS * anchors}, as SCRFD has"
        )
    y, x = np.mgrid[:side:stride, :side:stride]
    centres = np.stack([x, y], axis=-1).reshape(-1, 2).repeat(_ANCHORS, axis=0).astype(np.float32)
    distances = boxes.reshape(-1, 4).astype(np.float32) * stride
    corners = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
    return scores.reshape(-1), corners, centres[:, None] + points.reshape(-1, POINTS, 2).astype(np.float32) * stride


def _distinct(boxes: Array) -> list[int]:
    """The boxes that overlap no earlier one much. InsightFace counts both edges of a box as part of it."""
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sizes[:, 0] * sizes[:, 1]
    left, kept = np.arange(len(boxes)), []
    while left.size:
        best, rest = left[0], left[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        width, height = np.maximum(high - low + 1, 0).T
        shared = width * height
        left = rest[shared <= _MOST_OVERLAP * (areas[best] + areas[rest] - shared)]
    return kept
