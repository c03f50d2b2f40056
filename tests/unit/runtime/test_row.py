"""Rows: a row's result depends on the row alone, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.row import Row
from runtime.engines.engine import never_cancelled
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_engine, noise


def _row(number: int, side: int = 8) -> Row:
    return Row(noise(4, side, side, seed=number), torch.tensor(1.0 + 37 * number), noise(77, 32, seed=100 + number))


def test_the_inputs_are_the_fields_that_are_there() -> None:
    row = _row(1)
    assert row.inputs().keys() == {"latent", "t", "text"}
    assert row.inputs()["latent"] is row.latent
    assert replace(row, residuals=(noise(1),)).inputs().keys() == {"latent", "t", "text", "residuals"}
    everything = Row(**{field.name: noise(1) for field in fields(Row)})
    assert everything.inputs().keys() == {field.name for field in fields(Row)}


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rows_result_has_the_same_bytes_at_any_place_beside_any_rows(
    sd15: Checkpoint, size: int, dtype: torch.dtype
) -> None:
    engine, _ = make_engine("unet", sd15.unet, dtype)
    binding = engine.bind(WeightSet(sd15.unet), never_cancelled)

    def predictions(rows: list[Row]) -> list[torch.Tensor]:
        found = [outputs["prediction"] for outputs in engine.run([(binding, row.inputs()) for row in rows])]
        assert all(isinstance(prediction, torch.Tensor) for prediction in found)
        return found  # type: ignore[return-value]

    row = _row(1)
    alone = predictions([row] * size)[0]
    for place in range(size):
        rows = [_row(10 + n) for n in range(size)]
        rows[place] = row
        assert torch.equal(predictions(rows)[place], alone)
