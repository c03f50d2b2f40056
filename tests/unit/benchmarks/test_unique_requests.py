"""Every timed request has new inputs."""

from __future__ import annotations

import io

from PIL import Image

from benchmarks.unique_requests import UniqueRequests


def test_no_prompt_seed_or_picture_comes_twice() -> None:
    asked = UniqueRequests()
    found = [asked.next(64) for _ in range(50)]
    assert len({request.prompt for request in found}) == 50
    assert len({request.seed for request in found}) == 50
    assert len({request.image for request in found}) == 50
    assert Image.open(io.BytesIO(found[0].image)).size == (64, 64)


def test_the_same_questions_in_every_run() -> None:
    first, second = UniqueRequests(), UniqueRequests()
    assert [first.next(32) for _ in range(3)] == [second.next(32) for _ in range(3)]
