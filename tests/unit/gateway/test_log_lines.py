"""The log of a request: one line a stage and one a denoising step."""

from __future__ import annotations

import pytest

from lorikeet.gateway.execution.log_lines import LogLine, StepLog, planned_steps
from lorikeet.schema import ImageToImageInput, JobStatus


def lines(*statuses: JobStatus) -> tuple[list[str], list[float]]:
    found: list[LogLine] = []
    rates: list[float] = []
    log = StepLog(found.append, rates.append)
    for status in statuses:
        log(status)
    log.finish_stage()
    return [line.message for line in found], rates


def status(stage: str, step: int = 0, of: int = 0) -> JobStatus:
    return JobStatus(status="running", stage=stage, step=step, of=of)


def test_steps_between_two_polls_have_lines_too() -> None:
    messages, rates = lines(
        status("text_encoder"), status("denoiser", 0, 5), status("denoiser", 2, 5), status("vae_decoder", 1, 1)
    )
    assert [message.split(" ")[0] for message in messages] == [
        *("text_encoder", "denoiser", "1/5", "2/5", "3/5", "4/5", "5/5", "vae_decoder")
    ]
    assert len(rates) == 2 and all(rate > 0 for rate in rates)


def test_a_step_has_one_line() -> None:
    messages, _ = lines(status("denoiser", 1, 2), status("denoiser", 1, 2), status("denoiser", 2, 2))
    assert len(messages) == 3


@pytest.mark.parametrize("polled", [["prepare", "vae_decoder"], ["prepare", "denoiser"], ["denoiser", "vae_decoder"]])
def test_steps_of_which_no_poll_told_have_lines_at_the_end(polled: list[str]) -> None:
    """A poll at the beginning of the denoising finds no number of steps."""
    found: list[LogLine] = []
    rates: list[float] = []
    log = StepLog(found.append, rates.append)
    for stage in polled:
        log(status(stage))
    log.finish(3, 0.5)
    assert [line.message.split(" ")[0] for line in found] == [*polled, "1/3", "2/3", "3/3"]
    assert rates == [pytest.approx(6, rel=0.01)]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 30),
        ({"num_inference_steps": 4, "noise_strength": 0}, 4),
        ({"num_inference_steps": 4, "noise_strength": 0, "image_url": "a.png"}, 0),
        ({"num_inference_steps": 4, "noise_strength": 0.2, "image_url": "a.png"}, 4),
        ({"timesteps": {"method": "array", "array": [999, 500]}}, 0),
    ],
)
def test_the_steps_of_a_request(fields: dict[str, object], steps: int) -> None:
    request = {"model_name": "m", "prompt": "p", **fields}
    assert planned_steps(ImageToImageInput.model_validate(request)) == steps


def test_a_timestamp_is_utc_in_milliseconds() -> None:
    found: list[LogLine] = []
    StepLog(found.append, lambda _: None)(status("prepare"))
    assert found[0].timestamp.endswith("Z") and len(found[0].timestamp) == 24
