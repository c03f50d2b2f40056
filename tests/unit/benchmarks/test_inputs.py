"""Every timed request asks something new."""

from __future__ import annotations

import io

from PIL import Image

from benchmarks.inputs import Questions


def test_no_prompt_seed_or_picture_comes_twice() -> None:
    asked = Questions()
    found = [asked.next(64) for _ in range(50)]
    assert len({question.prompt for question in found}) == 50
    assert len({question.seed for question in found}) == 50
    assert len({question.image for question in found}) == 50
    assert Image.open(io.BytesIO(found[0].image)).size == (64, 64)


def test_the_same_questions_in_every_run() -> None:
    first, second = Questions(), Questions()
    assert [first.next(32) for _ in range(3)] == [second.next(32) for _ in range(3)]
