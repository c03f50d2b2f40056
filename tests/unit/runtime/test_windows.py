"""The UNet's windows: where they are, and how their predictions are averaged."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.conditioning.tiles import average, make_windows
from runtime.tile_plan import UNetTiles
from runtime.window import Window
from tests.unit.runtime.engines import assert_near, noise

SIDES = st.integers(1, 70)


@st.composite
def _pictures(draw: st.DrawFn) -> tuple[int, int, UNetTiles]:
    height, width = draw(SIDES), draw(SIDES)
    tile_height, tile_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    strides = draw(st.integers(1, tile_height)), draw(st.integers(1, tile_width))
    tiles = UNetTiles(height=tile_height, width=tile_width, stride_height=strides[0], stride_width=strides[1])
    return height, width, tiles


@given(_pictures())
def test_windows_of_one_size_cover_the_picture_and_lie_inside(picture: tuple[int, int, UNetTiles]) -> None:
    height, width, tiles = picture
    windows = make_windows(height, width, tiles)
    covered = torch.zeros(height, width)
    for window in windows:
        part = window.crop(covered)
        assert part.shape == (tiles.height, tiles.width)
        part.add_(1)
    assert covered.min() >= 1
    assert len(set(windows)) == len(windows)


@given(_pictures())
def test_windows_are_a_stride_apart_but_the_last_one_which_is_closer(picture: tuple[int, int, UNetTiles]) -> None:
    height, width, tiles = picture
    windows = make_windows(height, width, tiles)
    for starts, side, tile, stride in (
        (sorted({window.top for window in windows}), height, tiles.height, tiles.stride_height),
        (sorted({window.left for window in windows}), width, tiles.width, tiles.stride_width),
    ):
        distances = [later - earlier for earlier, later in pairwise(starts)]
        assert (starts[0], starts[-1]) == (0, side - tile)
        assert all(distance == stride for distance in distances[:-1])
        assert all(distance <= stride for distance in distances)


def test_without_tiles_the_window_is_the_picture() -> None:
    assert make_windows(5, 9, None) == (Window(0, 0, 5, 9),)


def test_a_crop_is_a_view_at_any_scale() -> None:
    pixels = noise(3, 40, 64)
    part = Window(1, 2, 3, 4).crop(pixels, 8)
    assert torch.equal(part, pixels[:, 8:32, 16:48])
    assert part.data_ptr() == pixels[:, 8:, 16:].data_ptr()


@given(_pictures())
def test_overlapping_predictions_are_averaged(picture: tuple[int, int, UNetTiles]) -> None:
    height, width, tiles = picture
    windows = make_windows(height, width, tiles)
    predictions = [noise(2, 4, tiles.height, tiles.width, seed=place) for place in range(len(windows))]
    found = average(predictions, windows, torch.empty(2, 4, height, width))
    for row, column in {(0, 0), (height // 2, width // 2), (height - 1, width // 3)}:
        seen = [
            prediction[:, :, row - window.top, column - window.left]
            for window, prediction in zip(windows, predictions, strict=True)
            if 0 <= row - window.top < window.height and 0 <= column - window.left < window.width
        ]
        assert_near(found[:, :, row, column], torch.stack(seen).mean(0))


def test_the_prediction_of_a_single_window_is_unchanged() -> None:
    prediction = noise(2, 4, 5, 9)
    assert average([prediction], make_windows(5, 9, None), torch.empty(2, 4, 5, 9)) is prediction
