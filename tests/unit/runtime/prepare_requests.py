"""Requests to the stage `prepare`."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.plans import Answer, make_call, text_tensor

PIXELS = np.random.default_rng(0).integers(0, 256, (66, 72, 3), np.uint8)


def make_png(pixels: Any = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ask(stage: PrepareStage, files: list[bytes] | None = None, image: bytes = b"", **fields: Any) -> Answer:
    body = json.dumps({"model_name": "sd15", "prompt": "a bird"} | fields)
    inputs: dict[str, Any] = {"REQUEST": text_tensor(body)}
    if files:
        inputs["FILES"] = np.array(files, np.object_)
    if image:
        inputs["IMAGE"] = np.frombuffer(image, np.uint8)
    call, answer = make_call(inputs, job_table=stage.reporter.job_table)
    stage.submit(call)
    return answer


def assert_refused(answer: Answer, message: str) -> None:
    assert isinstance(answer.error, InvalidArgument)
    assert message in str(answer.error)
