"""Which submits are one request: by an Idempotency-Key, or by input, seed and time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from lorikeet.gateway.files.stored_file import Lifecycle
from lorikeet.gateway.queue.submission import Options, RequestIds, Submission, digest, has_seed, seeded

BODY: dict[str, Any] = {"prompt": "a", "seed": 7}
IDS = RequestIds(b"secret")


def test_a_key_gives_one_id_to_its_owner_alone() -> None:
    assert IDS.keyed("alice", "k") == IDS.keyed("alice", "k")
    others = {IDS.keyed("bob", "k"), IDS.keyed("alice", "l"), RequestIds(b"other").keyed("alice", "k"), IDS.new()}
    assert len(others | {IDS.keyed("alice", "k")}) == 5


def test_equal_submits_within_ten_seconds_have_an_id_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[tuple[str, str]] = []
    for now in (1000.0, 1009.9, 1019.0, 1031.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        ids.append(IDS.recent("alice", "digest"))
    assert ids[0] == ids[1]
    assert ids[2][1] == ids[1][0]
    assert not set(ids[3]) & set(ids[0])


def test_the_digest_tells_inputs_endpoints_and_options_apart() -> None:
    options = Options()
    different = [
        digest("a", BODY, options),
        digest("b", BODY, options),
        digest("a", {**BODY, "seed": 8}, options),
        digest("a", BODY, replace(options, webhook="https://example.com")),
    ]
    assert len(set(different)) == 4
    assert digest("a", dict(reversed(BODY.items())), options) == different[0]


@pytest.mark.parametrize("seed", [None, -1, "-1"])
def test_a_submit_without_a_seed_gets_one(seed: object) -> None:
    body = {"prompt": "a", "seed": seed}
    assert not has_seed(body)
    assert 0 <= seeded(body)["seed"] < 2**32
    assert seeded(BODY) == BODY


def test_the_database_gives_a_submission_back() -> None:
    options = Options(webhook="https://example.com", start_timeout=5.0, lifecycle=Lifecycle(60.0, is_private=True))
    made = Submission("id", "fal-ai/lora", "alice", BODY, options, 100.0, "digest")
    assert Submission.from_json(made.to_json()) == made
    assert made.start_deadline == 105.0
