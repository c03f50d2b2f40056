"""The sum of a weight and its changes: piece by piece, into any dtype and strides."""

from __future__ import annotations

import pytest
import torch

from runtime.lora.kinds import dora
from runtime.lora.kinds.difference import DIFFERENCE
from runtime.lora.kinds.dora import Decomposed
from runtime.lora.kinds.loha import LOHA
from runtime.lora.kinds.lokr import LOKR
from runtime.weights.change import Change, LowRank
from runtime.weights.merge import merge
from tests.unit.runtime.engines import noise

RANK = 4
# One number, less than a piece, pieces with a rest, rows that are larger than a piece, a convolution.
SHAPES = [(1, 1), (16, 16), (700, 801), (3, 300_000), (150, 260, 3, 3)]


def _low_rank(shape: tuple[int, ...], seed: int) -> LowRank:
    return LowRank(noise(RANK, *shape[1:], seed=seed), noise(shape[0], RANK, seed=seed + 9), 0.5 * seed)


@pytest.mark.parametrize("with_difference", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_is_that_of_the_whole_in_float64(
    shape: tuple[int, ...], dtype: torch.dtype, with_difference: bool
) -> None:
    changes: list[Change] = [_low_rank(shape, seed=1), _low_rank(shape, seed=2)]
    if with_difference:
        changes.insert(1, DIFFERENCE.change({"difference": noise(*shape, seed=3)}, -2.0))
    start = noise(*shape).to(dtype)
    expected = start.double()
    for change in changes:
        expected = expected + _exact(change, shape)
    for memory_format in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]:
        out = torch.empty(shape, dtype=dtype).contiguous(memory_format=memory_format)
        merge(start, changes, out)
        # Summed in float32 and rounded once.
        torch.testing.assert_close(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
        assert out.is_contiguous(memory_format=memory_format)


def _exact(change: Change, shape: tuple[int, ...]) -> torch.Tensor:
    if isinstance(change, LowRank):
        return (change.scale * change.up.double() @ change.down.double().flatten(1)).reshape(shape)
    return change.delta(torch.zeros(shape)).double()


def test_every_change_is_a_function_of_the_start() -> None:
    class Twice:
        def delta(self, base: torch.Tensor) -> torch.Tensor:
            return 2.0 * base

    start, low_rank = noise(8, 8), _low_rank((8, 8), seed=1)
    out = torch.empty(8, 8)
    merge(start, [Twice(), low_rank, Twice()], out)
    torch.testing.assert_close(out, 5.0 * start + low_rank.delta(start))


NARROW: dict[str, Change] = {
    "low-rank": _low_rank((6, 4, 3, 3), seed=1),
    "full difference": DIFFERENCE.change({"difference": noise(6, 4, 3, 3)}, 2.0),
    "LoHa": LOHA.change({f"hada_w{n}_{s}": noise(*((6, 2) if s == "a" else (2, 36))) for n in "12" for s in "ab"}, 2.0),
    "LoKr": LOKR.change({"lokr_w1": noise(2, 2), "lokr_w2": noise(3, 2, 3, 3)}, 2.0),
    "DoRA": Decomposed(_low_rank((6, 4, 3, 3), seed=1), noise(6), dora.PEFT, 1.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", NARROW)
def test_a_change_of_fewer_input_channels_changes_the_first_ones(kind: str, dtype: torch.dtype) -> None:
    """A LoRA of conv_in, merged for an architecture that takes more channels, alone and beside IC-Light's offset."""
    start, change = noise(6, 4, 3, 3), NARROW[kind]
    narrow, wide, both = (torch.empty(6, inputs, 3, 3, dtype=dtype) for inputs in (4, 8, 8))
    merge(start, [change], narrow)
    merge(start, [change], wide)
    torch.testing.assert_close(wide[:, :4], narrow)
    assert not wide[:, 4:].any()
    offset = noise(6, 8, 3, 3, seed=5)
    merge(start, [change, DIFFERENCE.change({"difference": offset}, 1.0)], both)
    torch.testing.assert_close(both, (wide.float() + offset).to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-2)
