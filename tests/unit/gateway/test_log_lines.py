"""The log of a request: one line a stage and one a denoising step."""

from __future__ import annotations

from lorikeet.gateway.execution.log_lines import LogLine, StepLog
from lorikeet.schema import JobStatus


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


def test_a_timestamp_is_utc_in_milliseconds() -> None:
    found: list[LogLine] = []
    StepLog(found.append, lambda _: None)(status("prepare"))
    assert found[0].timestamp.endswith("Z") and len(found[0].timestamp) == 24
