"""`finish`: the pictures, encoded, and the response."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lorikeet.schema import EngineReceipt, ImageToImageOutput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.metrics.stage_definitions import REQUEST_SECONDS
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array
from runtime.stages.finish import FinishStage
from runtime.stages.report import Report
from tests.unit.runtime.engines import noise
from tests.unit.runtime.plans import make_plan, run_stage

TIMINGS = {"prepare": 1.5, "text_encoder": 1.5, "vae_encoder": 1.5, "denoiser": 2.5, "vae_decoder": 1.5}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


def _finished(settings: Settings, job_table: JobTable, plan: Plan, **parameters: str) -> dict[str, Array]:
    inputs = {
        "PIXELS": PIXELS,
        "LATENTS": noise(2, 4, 8, 8).numpy(),
        "PER_PASS_LATENTS": np.zeros((0, 2, 4, 8, 8), np.float32),
    }
    report = Report(timings=TIMINGS, engine=EngineReceipt(name="torch", precision="float32"), warnings=["cut"])
    return dict(run_stage(FinishStage(settings, job_table), plan, inputs, report, **parameters).tensors)


def _response(outputs: dict[str, Array]) -> ImageToImageOutput:
    return ImageToImageOutput.model_validate_json(outputs["RESPONSE"][0])


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_pictures_are_encoded_as_asked(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, image_format: str
) -> None:
    outputs = _finished(settings, job_table, make_plan(sd15, job, image_format=image_format))
    for data, told, pixels in zip(outputs["IMAGES"], _response(outputs).images, PIXELS, strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == image_format.upper()
            assert image_format == "jpeg" or np.array_equal(np.asarray(image), pixels)
        assert (told.url, told.content_type) == ("", f"image/{image_format}")
        assert (told.file_size, told.width, told.height) == (len(data), 64, 64)
        assert told.file_name and told.file_name.endswith(f".{image_format}")


def test_the_response_tells_what_ran(settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef) -> None:
    plan = make_plan(sd15, job).model_copy(update={"files": {"model_name.unet[0]": "d" * 64}, "warnings": ("odd",)})
    response = _response(_finished(settings, job_table, plan))
    receipt = response.receipt
    assert (receipt.engine.name, receipt.engine.precision, response.seed, receipt.seed) == ("torch", "float32", 5, 5)
    assert (receipt.files, response.warnings) == ({"model_name.unet[0]": "d" * 64}, ["odd", "cut"])
    assert receipt.request["prompt"] == "a bird"
    assert response.timings["prepare"] == 1.5 and response.timings["denoiser"] == 2.5
    assert response.timings["total"] >= response.timings["finish"] > 0
    # An environment from the public registry lacks the local part, such as `+cpu`, which torch itself tells.
    public, _, _ = receipt.versions["torch"].partition("+")
    assert public == str(torch.__version__).partition("+")[0]
    assert job_table.progress(job).state == State.DONE


def test_the_receipt_has_the_vaes_tiles(settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef) -> None:
    plan = make_plan(sd15, job, size=256, tile_width=128, tile_height=160)
    receipt = _response(_finished(settings, job_table, plan)).receipt
    assert (receipt.vae_tile_width, receipt.vae_tile_height) == (128, 160)
    whole = _response(_finished(settings, job_table, make_plan(sd15, size=256))).receipt
    assert (whole.vae_tile_width, whole.vae_tile_height) == (0, 0)


def test_pictures_go_into_the_response_on_request(settings: Settings, job_table: JobTable, plan: Plan) -> None:
    outputs = _finished(settings, job_table, plan, images="data_uri")
    for data, told in zip(outputs["IMAGES"], _response(outputs).images, strict=True):
        head, _, body = told.url.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body) == data


@pytest.mark.parametrize("asked", [True, False])
def test_latents_are_sent_when_asked_for(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, asked: bool
) -> None:
    outputs = _finished(settings, job_table, make_plan(sd15, job, debug_latents=asked))
    assert outputs["DEBUG_LATENTS"].shape == (2 * asked, 4, 8, 8)


def test_the_time_of_the_whole_request_is_measured(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    stage = FinishStage(settings, job_table)
    inputs: dict[str, Array] = {
        "PIXELS": PIXELS,
        "LATENTS": np.zeros((2, 4, 8, 8), np.float32),
        "PER_PASS_LATENTS": np.zeros((0, 1)),
    }
    outputs = run_stage(stage, make_plan(sd15, job), inputs).tensors
    (measured,) = [one for one in stage.metrics.take() if one.series.definition is REQUEST_SECONDS]
    assert measured.observations == [_response(dict(outputs)).timings["total"]]
