"""`prepare`: requests are admitted, wait, are cancelled, and hold files and memory while they are in flight."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.files.picture_metadata.strip_metadata import strip_metadata
from runtime.files.picture_metadata.stripped_picture import CHECK_EVERY
from runtime.jobs.job_table import JobTable, State
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, DeadlineExceeded, StageError, Unavailable
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.picture_files import chunk, with_chunk
from tests.unit.runtime.plans import Answer, make_call, text_tensor
from tests.unit.runtime.prepare_requests import ask, assert_refused, make_png
from tests.unit.runtime.web import Web, reply, silent

pytestmark = pytest.mark.usefixtures("tiny_allowed")


def _addressed(stage: PrepareStage, request_id: str, image_url: str) -> Answer:
    body = json.dumps({"model_name": "sd15", "prompt": "p", "image_url": image_url})
    call, answer = make_call({"REQUEST": text_tensor(body)}, request_id, job_token="secret")
    stage.submit(call)
    return answer


@pytest.fixture
def held(web: Web) -> Iterator[threading.Event]:
    """`/held` is a picture that does not come before the test ends."""
    event = threading.Event()
    web.answers["/held"] = silent(event)
    yield event
    event.set()


def test_a_second_live_request_of_one_id_is_refused(stage: PrepareStage, web: Web, held: threading.Event) -> None:
    _addressed(stage, "a", web.url("/held"))
    assert_refused(_addressed(stage, "a", "tensor:0"), "request_id: a request with this id is in flight")


def test_an_id_that_no_call_for_the_job_could_give_is_refused(stage: PrepareStage) -> None:
    assert_refused(_addressed(stage, "a" * 256, "tensor:0"), "request_id: expected at most 255 characters, found 256")


def test_no_more_requests_than_the_limit(
    settings: Settings, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_in_flight": 1}), job_table)
    ask(stage, image_url=web.url("/held"))
    assert isinstance(ask(stage).error, Unavailable)
    stage.close()


def test_a_request_is_cancelled_while_its_files_are_fetched(
    stage: PrepareStage, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    answer = _addressed(stage, "a", web.url("/held"))
    job = job_table.find("a", "secret")
    assert job is not None
    job_table.cancel(job)
    assert isinstance(answer.error, Cancelled)
    assert job_table.progress(job).state == State.CANCELLED
    assert job_table.live() == []


def test_a_cancel_ends_the_decoding_of_a_picture(
    stage: PrepareStage, job_table: JobTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of many chunks is sent; the job is cancelled while they are read."""

    def cancelled_meanwhile(data: bytes, check_cancelled: Any) -> Any:
        (job,) = job_table.live()
        job_table.cancel(job)
        return strip_metadata(data, check_cancelled)

    monkeypatch.setattr("runtime.files.image_codec.strip_metadata", cancelled_meanwhile)
    odd = with_chunk(make_png(), chunk(b"tEXt", b"") * CHECK_EVERY)
    assert isinstance(ask(stage, [odd], image_url="tensor:0").error, Cancelled)


def test_a_draining_server_takes_no_request(stage: PrepareStage, job_table: JobTable) -> None:
    job_table.drain()
    assert isinstance(ask(stage).error, Unavailable)


def test_a_request_that_is_open_when_the_stage_closes_is_answered(
    settings: Settings, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_in_flight": 3}), job_table)
    answers = [ask(stage, image_url=web.url("/held")) for _ in range(3)]
    stage.close()
    assert all(isinstance(answer.error, Unavailable) for answer in answers)


def test_the_files_of_a_job_stay_while_it_lives(settings: Settings, job_table: JobTable, tiny: Path, web: Web) -> None:
    stage = PrepareStage(settings.model_copy(update={"store_bytes": 0}), job_table)
    files = {style: (tiny / f"loras/sd15/{style}.safetensors").read_bytes() for style in ("peft", "kohya")}
    web.answers |= {f"/{style}": reply(content) for style, content in files.items()}
    first, second = (ask(stage, loras=[{"path": web.url(f"/{style}")}]).plan for style in ("peft", "kohya"))
    assert first.loras[0].path.exists() and second.loras[0].path.exists()
    job_table.report(first.job, "finish", State.DONE)
    assert ask(stage).plan  # notices that the first one has ended
    assert ask(stage, [files["kohya"]], loras=[{"path": "tensor:0"}]).plan  # and what is put next evicts its files
    assert not first.loras[0].path.exists()
    assert second.loras[0].path.exists()
    stage.close()


def test_a_request_too_large_for_the_memory_is_refused(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"memory_bytes": 10**8}), job_table)
    size = {"width": 1024, "height": 1024}
    assert_refused(
        ask(stage, image_size=size),
        "its pictures need about 0.2 GB of memory, the server has 0.1 GB (LORIKEET_MEMORY_BYTES)",
    )
    assert ask(stage).plan
    stage.close()


def test_requests_that_do_not_fit_together_wait_outside(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"memory_bytes": 210_000_000}), job_table)
    large: dict[str, Any] = {
        "image_size": {"width": 256, "height": 256},
        "num_images": 4,
        "debug_per_pass_latents": True,
    }
    answers = [ask(stage, num_inference_steps=150, **large) for _ in range(12)]
    for answer in answers:
        answer.wait()
    taken = [answer for answer in answers if not isinstance(answer.all[0], StageError)]
    assert 1 < len(taken) < 12
    assert all(isinstance(answer.error, Unavailable) for answer in answers if answer not in taken)
    job_table.report(taken[0].plan.job, "finish", State.DONE)
    assert ask(stage, num_inference_steps=150, **large).plan
    stage.close()


def test_a_request_that_runs_out_of_time_while_its_files_are_fetched(
    stage: PrepareStage, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    body = json.dumps({"model_name": "sd15", "prompt": "p", "image_url": web.url("/held")})
    call, answer = make_call({"REQUEST": text_tensor(body)}, job_timeout_ms=300)
    stage.submit(call)
    assert isinstance(answer.error, DeadlineExceeded)
    assert job_table.live() == []


def test_many_that_wait_for_slow_servers_hold_up_nobody(stage: PrepareStage, web: Web, held: threading.Event) -> None:
    slow = [ask(stage, image_url=web.url("/held")) for _ in range(40)]
    assert ask(stage).plan
    assert not any(answer.all for answer in slow)
