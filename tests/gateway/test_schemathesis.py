"""Requests that schemathesis makes from the published OpenAPI, valid and invalid ones: no answer is a server error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation

from tests.gateway.target import Target

Operation = APIOperation[Any, Any, Any, Any]
SECONDS = 60.0  # for one answer
MODES = (GenerationMode("positive"), GenerationMode("negative"))
EXAMPLES = [15, pytest.param(300, marks=pytest.mark.verify)]  # for each operation, valid ones and invalid ones


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_answer_is_a_server_error(keyed_gateway: Target, examples: int) -> None:
    sent = {
        (operation.label, mode): send_many(keyed_gateway, operation, mode, examples)
        for operation in operations(keyed_gateway)
        for mode in MODES
    }
    assert len(sent) >= 30 and sum(sent.values()) >= examples * len(sent) / 2, sent


def operations(keyed_gateway: Target) -> Iterator[Operation]:
    for result in schemathesis.openapi.from_url(f"{keyed_gateway.url}/openapi.json").get_all_operations():
        assert isinstance(result, Ok), result
        yield result.ok()


def send_many(keyed_gateway: Target, operation: Operation, mode: GenerationMode, examples: int) -> int:
    """Send requests of one operation. Returns their number."""
    sent = 0

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case[Any]) -> None:
        nonlocal sent
        sent += 1
        answer = case.call(headers={"Authorization": f"Key {keyed_gateway.key}"}, timeout=SECONDS)
        assert answer.status_code < 500, (case.as_curl_command(), answer.status_code, answer.text)

    with suppress(Unsatisfiable):  # an operation without parameters has no invalid requests
        send()
    return sent
