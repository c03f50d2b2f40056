"""Rows to batches and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from runtime.engines.stacking import shapes, stack, unstack
from tests.unit.runtime.engines import noise


def _row(seed: int, **more: Any) -> dict[str, Any]:
    return {
        "latent": noise(4, 8, 8, seed=seed),
        "t": torch.tensor(float(seed)),
        "text": noise(77, 32, seed=seed),
    } | more


def test_stacked_fields_get_a_first_axis() -> None:
    rows = [_row(n, residuals=(noise(3, 2, 2, seed=n), noise(6, 1, 1, seed=n)), pooled=None) for n in range(3)]
    found = stack(rows)
    assert found.keys() == {"latent", "t", "text", "residuals"}, "a field that no row has is left out"
    latent, t, residuals = found["latent"], found["t"], found["residuals"]
    assert isinstance(latent, torch.Tensor) and isinstance(t, torch.Tensor) and isinstance(residuals, tuple)
    assert torch.equal(latent[1], noise(4, 8, 8, seed=1))
    assert t.tolist() == [0.0, 1.0, 2.0]
    assert [tuple(item.shape) for item in residuals] == [(3, 3, 2, 2), (3, 6, 1, 1)]
    assert torch.equal(residuals[1][2], noise(6, 1, 1, seed=2))


@pytest.mark.parametrize("has_it_first", [True, False])
def test_a_field_that_some_rows_lack_is_an_error(has_it_first: bool) -> None:
    rows = [_row(0, pooled=noise(5)), _row(1)]
    with pytest.raises(ValueError, match=r"^pooled: some rows of the batch have it and others do not$"):
        stack(rows if has_it_first else rows[::-1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latent", noise(4, 16, 16)),
        ("latent", noise(4, 8, 8).half()),
        ("text", noise(154, 32)),
        ("residuals", (noise(1, 8, 8),)),
        ("residuals", (noise(1, 8, 8), noise(2, 4, 8))),
    ],
)
def test_rows_of_different_shapes_or_dtypes_are_an_error(field: str, value: Any) -> None:
    residuals = (noise(1, 8, 8), noise(2, 4, 4))
    with pytest.raises(ValueError, match=f"^{field}: the rows of the batch have different shapes or dtypes$"):
        stack([_row(0, residuals=residuals), _row(1, residuals=residuals) | {field: value}])


@pytest.mark.parametrize(
    "more",
    [
        {"latent": noise(4, 16, 16)},
        {"latent": noise(4, 8, 8).half()},
        {"text": noise(154, 32)},
        {"pooled": noise(4)},
        {"residuals": (noise(1, 8, 8),)},
        {"text": None},
    ],
)
def test_rows_that_cannot_be_stacked_have_other_shapes(more: dict[str, Any]) -> None:
    assert shapes(_row(1)) != shapes(_row(2) | more)
    with pytest.raises(ValueError, match="rows of the batch"):
        stack([_row(1), _row(2) | more])


def test_equal_shapes_know_neither_the_order_of_the_fields_nor_absent_ones() -> None:
    row = _row(1)
    assert shapes(row) == shapes(_row(2)) == shapes(dict(reversed(row.items()))) == shapes(row | {"pooled": None})
    assert hash(shapes(row)) == hash(shapes(_row(2)))
    one, other = ({"residuals": (noise(1, 8, 8), noise(2, 4, 4))}, {"residuals": (noise(2, 4, 4), noise(1, 8, 8))})
    assert shapes(one) != shapes(other)


def test_unstacking_gives_each_row_its_own() -> None:
    mean, residuals = noise(3, 4, 2, 2), (noise(3, 5), noise(3, 6, 1))
    found = unstack({"mean": mean, "residuals": residuals}, 2)
    assert len(found) == 2, "rows that only fill the batch are left out"
    for row, outputs in enumerate(found):
        assert isinstance(outputs["mean"], torch.Tensor) and torch.equal(outputs["mean"], mean[row])
        assert isinstance(outputs["residuals"], tuple) and len(outputs["residuals"]) == 2
        assert all(torch.equal(one, all_[row]) for one, all_ in zip(outputs["residuals"], residuals, strict=True))
