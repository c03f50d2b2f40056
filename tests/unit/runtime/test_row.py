"""Rows and blocks: a row's answer depends on the row alone, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.row import Row, blocks, stack
from runtime.engines.engine import Inputs
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_engine, noise, predict


def _row(number: int, side: int = 8) -> Row:
    return Row(noise(4, side, side, seed=number), torch.tensor(1.0 + 37 * number), noise(77, 32, seed=100 + number))


def _latents(inputs: Inputs) -> torch.Tensor:
    latents = inputs["latent"]
    assert isinstance(latents, torch.Tensor)
    return latents


@given(count=st.integers(1, 20), size=st.integers(1, 8))
def test_blocks_hold_every_row_once_and_in_order(count: int, size: int) -> None:
    rows = [Row(torch.full((4, 1, 1), n), torch.tensor(n), torch.zeros(1, 1)) for n in range(count)]
    found = blocks(rows, size)
    assert all(len(_latents(inputs)) == size for inputs, _ in found)
    kept = torch.cat([_latents(inputs)[:keep] for inputs, keep in found])
    assert kept[:, 0, 0, 0].tolist() == list(range(count))


def test_stacked_fields_get_a_first_axis() -> None:
    rows = [
        Row(
            noise(4, 2, 2, seed=n),
            torch.tensor(float(n)),
            noise(77, 8),
            pooled=noise(5),
            residuals=(noise(3, 2, 2), noise(6, 1, 1)),
        )
        for n in range(3)
    ]
    inputs = stack(rows)
    assert inputs["t"] is not None and isinstance(inputs["residuals"], tuple)
    assert torch.equal(_latents(inputs)[1], rows[1].latent)
    assert [tuple(item.shape) for item in inputs["residuals"]] == [(3, 3, 2, 2), (3, 6, 1, 1)]
    assert inputs["ip_k"] is None and inputs["concat"] is None


@pytest.mark.parametrize(
    "other",
    [
        _row(0, side=16),
        Row(noise(4, 8, 8), torch.tensor(1.0), noise(154, 32)),
        Row(noise(4, 8, 8), torch.tensor(1.0), noise(77, 32), pooled=noise(4)),
        Row(noise(4, 8, 8), torch.tensor(1.0), noise(77, 32), residuals=(noise(1, 8, 8),)),
        Row(noise(4, 8, 8).half(), torch.tensor(1.0), noise(77, 32)),
    ],
)
def test_rows_that_cannot_be_stacked_have_other_shapes(other: Row) -> None:
    assert _row(1).shapes == _row(2).shapes != other.shapes


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rows_answer_is_the_same_whatever_is_beside_it(sd15: Checkpoint, size: int, dtype: torch.dtype) -> None:
    engine, _ = make_engine("unet", sd15.unet, dtype)
    row = _row(1)

    def answers(rows: list[Row]) -> list[torch.Tensor]:
        found = [(predict(engine, WeightSet(sd15.unet), inputs), keep) for inputs, keep in blocks(rows, size)]
        return [answer for prediction, keep in found for answer in prediction[:keep]]

    (alone,) = answers([row])
    for place in range(size):
        rows = [_row(10 + n) for n in range(size)]
        rows[place] = row
        assert torch.equal(answers(rows)[place], alone)
