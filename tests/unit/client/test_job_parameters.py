"""The Triton request parameters of a job: writing and reading."""

from __future__ import annotations

from typing import Any

import pytest

from lorikeet.protocol.parameters import JobParameters, ParameterError


@pytest.mark.parametrize(
    ("job", "parameters"),
    [
        (JobParameters(), {}),
        (JobParameters("t", priority=1), {"job_token": "t", "job_priority": 1}),
        (JobParameters("t", timeout=1.5), {"job_token": "t", "job_timeout_ms": 1500}),
        (
            JobParameters(priority=3, timeout=60, data_uri=True),
            {"job_priority": 3, "job_timeout_ms": 60000, "images": "data_uri"},
        ),
    ],
)
def test_parameters_go_to_the_wire_and_back(job: JobParameters, parameters: dict[str, Any]) -> None:
    assert job.to_triton() == parameters
    assert JobParameters.from_triton(parameters) == job


def test_a_timeout_is_at_least_a_millisecond() -> None:
    assert JobParameters(timeout=0.0001).to_triton() == {"job_timeout_ms": 1}


def test_numbers_may_be_text_and_unknown_parameters_are_ignored() -> None:
    sent: dict[str, Any] = {"job_priority": "3", "job_timeout_ms": "1", "images": "no", "other": 5}
    assert JobParameters.from_triton(sent) == JobParameters(priority=3, timeout=0.001)


def test_a_token_that_no_call_for_the_job_could_give_is_refused() -> None:
    assert JobParameters.from_triton({"job_token": "t" * 255}).token == "t" * 255
    with pytest.raises(ParameterError, match=r"^job_token: expected at most 255 characters, found 256$"):
        JobParameters.from_triton({"job_token": "t" * 256})
    with pytest.raises(ParameterError, match=r"^job_token: expected valid Unicode, found half of a surrogate pair$"):
        JobParameters.from_triton({"job_token": "\ud800"})


@pytest.mark.parametrize("name", ["job_priority", "job_timeout_ms"])
@pytest.mark.parametrize("value", [0, -1, "", "x", "1.5", "1e3", True, False, 10**12, "9" * 5000, "²", " 1"])
def test_other_values_are_refused_by_their_name(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"^{name}: expected a whole number from 1 to ") as caught:
        JobParameters.from_triton({name: value})
    assert (caught.value.name, len(str(caught.value)) < 150) == (name, True)
