"""Generators of asks that run side by side."""

from __future__ import annotations

import pytest
import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.engines.together import Asking, together
from tests.unit.runtime.fake_engine import ask
from tests.unit.runtime.stand_in import answered, fake_bound, tensor

BOUND: Bound = fake_bound()


def _counting(number: int, lists: int, asks: int = 1, closed: list[int] | None = None) -> Asking[list[int]]:
    """Yields `lists` lists of `asks` asks of a number, and returns what was answered."""
    answers: list[int] = []
    try:
        for place in range(lists):
            found = yield [ask(BOUND, 100 * number + 10 * place + one) for one in range(asks)]
            assert len(found) == asks
            answers += [int(output["prediction"]) for output in found]  # type: ignore[arg-type]
        return answers
    finally:
        if closed is not None:
            closed.append(number)


def _respond(asked: Ask) -> Outputs:
    return {"prediction": tensor(asked, "latent") + 1}


def _numbers(asks: list[Ask]) -> list[int]:
    return [int(tensor(asked, "latent")) for asked in asks]


def test_lists_are_joined_and_each_generator_gets_its_own_answers() -> None:
    yielded, returned = answered(together([_counting(1, 2), _counting(2, 2, asks=2)]), _respond)
    assert [_numbers(asks) for asks in yielded] == [[100, 200, 201], [110, 210, 211]]
    assert returned == [[101, 111], [201, 202, 211, 212]]


def test_one_that_ends_earlier_does_not_hold_up_the_others() -> None:
    yielded, returned = answered(together([_counting(1, 0), _counting(2, 3), _counting(3, 1)]), _respond)
    assert [_numbers(asks) for asks in yielded] == [[200, 300], [210], [220]]
    assert returned == [[], [201, 211, 221], [301]]


def test_none_return_nothing() -> None:
    assert answered(together([]), _respond) == ([], [])


@pytest.mark.parametrize("how", ["close", "throw", "answer"])
def test_all_are_closed_however_it_ends(how: str) -> None:
    closed: list[int] = []
    running = together([_counting(1, 2, closed=closed), _counting(2, 2, closed=closed)])
    next(running)
    if how == "close":
        running.close()
    elif how == "throw":
        with pytest.raises(RuntimeError, match="failed"):
            running.throw(RuntimeError("failed"))
    else:
        with pytest.raises(KeyError):
            running.send([{"other": torch.zeros(1)}] * 2)
    assert sorted(closed) == [1, 2]
