"""The detector and the embedder of an InsightFace pack, run by OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from lorikeet.protocol.shorten import shorten
from runtime.engines.openvino.core import core
from runtime.faces.face import Array, Face, FaceError, Pixels
from runtime.faces.onnx_model import OnnxModel
from runtime.faces.scrfd import LARGEST_STRIDE, MOST_SIDE, read_faces

_MEAN = 127.5
_DETECTOR_DEVIATION, _EMBEDDER_DEVIATION = 128.0, 127.5
_MOST_VALUES = 4096  # of an embedding; published networks have 512
_EXPECTED = {"detect": "a detector (SCRFD, 9 outputs)", "embed": "an ArcFace network (112 x 112 pixels)"}


class Pack:
    """`threads`: of each network. Raises FaceError when a network is missing or cannot be run."""

    def __init__(self, paths: Sequence[Path], threads: int) -> None:
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        found: dict[str, OnnxModel] = {}
        for path in paths:
            model = OnnxModel(path)
            if model.task is not None:
                found.setdefault(model.task, model)  # the first one, as InsightFace takes it
        for task, expected in _EXPECTED.items():
            if task not in found:
                raise FaceError(f"it lacks a network: expected {expected} among its .onnx files")
        self._detector, self._embedder = found["detect"], found["embed"]
        self._compiled: dict[tuple[str, int], Any] = {}

    def detect(self, pixels: Pixels) -> list[Face]:
        """The faces in a picture [side, side, 3], the side a multiple of 32."""
        side = len(pixels)
        return read_faces(self._run(self._detector, pixels, _MEAN, _DETECTOR_DEVIATION), side)

    @property
    def detector_side(self) -> int | None:
        """The side of the only pictures that the detector takes; None: any multiple of 32."""
        side = self._detector.side
        if side is not None and (side % LARGEST_STRIDE or side > MOST_SIDE):
            raise FaceError(f"its detector takes {side} x {side} pixels: expected a multiple of 32 up to {MOST_SIDE}")
        return side

    def embed(self, face: Pixels) -> Array:
        """The embedding of an aligned face."""
        mean, deviation = (0.0, 1.0) if self._embedder.scales_input else (_MEAN, _EMBEDDER_DEVIATION)
        (embedding,) = self._run(self._embedder, face, mean, deviation)
        if not 0 < embedding.size <= _MOST_VALUES or not np.isfinite(embedding).all():
            raise FaceError(f"its ArcFace network gives {embedding.size} values: expected finite ones, such as 512")
        return embedding.reshape(-1)

    def _run(self, model: OnnxModel, pixels: Pixels, mean: float, deviation: float) -> list[Array]:
        planes = (pixels.transpose(2, 0, 1)[None].astype(np.float32) - mean) / deviation
        try:
            request = self._compile(model, len(pixels))
            request.infer([planes])
            return [output.data.astype(np.float32) for output in request.output_tensors]
        except RuntimeError as error:  # OpenVINO has no other
            network = _EXPECTED[str(model.task)]
            raise FaceError(f"OpenVINO cannot run {network} of it ({shorten(str(error), 200)})") from error

    def _compile(self, model: OnnxModel, side: int) -> Any:
        """A request for pictures of one size: with any size, OpenVINO keeps what it decides in the first call."""
        key = (str(model.task), side)
        if key not in self._compiled:
            graph = core().read_model(model.content)
            graph.reshape(ov.PartialShape([1, 3, side, side]))
            self._compiled[key] = core().compile_model(graph, "CPU", self._settings).create_infer_request()
        return self._compiled[key]
