"""Tiles: MultiDiffusion in the UNet, and the VAE in tiles. `parity` says what is compared."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.reference import ReferenceTiles
from tests.server.parity import Answers, Change, Report, Row, check, fields, loras, rows
from tests.server.test_parity_controlnets import controlnets, half_mask
from tests.server.test_parity_ip_adapters import BASE, ip_adapters, with_last


def _picture(width: int, height: int, seed: int = 3) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def _tiles(width: int, height: int, stride_width: int | None = None, stride_height: int | None = None) -> Change:
    return fields(tiles=ReferenceTiles(width, height, stride_width, stride_height))


LARGE = fields(image=_picture(192, 160))
WIDE = fields(image=_picture(288, 168))
ODD = fields(image=_picture(200, 136))  # 25 x 17 latents
LARGE_TEXT_TO_IMAGE = fields(image=None, width=208, height=168)
SQUARE = _tiles(128, 128)

TILES: dict[str, tuple[Change, ...]] = {
    "tiles": (LARGE, SQUARE),
    "tiles_stride": (WIDE, SQUARE, _tiles(128, 128, 72, 96)),
    "tiles_stride_above_tile": (WIDE, SQUARE, _tiles(128, 128, 512, 2048)),
    "tiles_of_odd_sizes": (ODD, _tiles(136, 136, 76, 64)),
    "tiles_above_the_picture": (LARGE, SQUARE, _tiles(4096, 4096, 64, 64)),
    "tiles_in_one_row": (LARGE_TEXT_TO_IMAGE, _tiles(128, 4096)),
    "tiles_not_square": (LARGE_TEXT_TO_IMAGE, _tiles(136, 144, 64, 80)),
    "tiles_num_images_2": (LARGE, SQUARE, fields(num_images=2)),
    "tiles_two_loras": (LARGE, SQUARE, loras("peft", "kohya")),
    "tiles_guidance_off": (LARGE, SQUARE, fields(guidance_scale=1.0)),
    "tiles_with_noise": (LARGE, SQUARE, fields(scheduler="Euler A")),
}
CONTROLS = (_picture(192, 160, 4), _picture(192, 160, 5))
CONDITIONED_TILES: dict[str, tuple[Change, ...]] = {
    "tiles_controlnet": (LARGE, SQUARE, controlnets("", images=CONTROLS)),
    "tiles_two_controlnets": (
        LARGE,
        SQUARE,
        controlnets("", images=CONTROLS),
        controlnets("", "_b", images=CONTROLS),
    ),
    "tiles_ip_adapter_mask": (LARGE, SQUARE, ip_adapters(BASE), with_last(mask=half_mask((192, 160)))),
}


@pytest.mark.parametrize("row", rows({**TILES, **CONDITIONED_TILES}, on_all=["tiles"]))
def test_latents_equal_those_of_multidiffusion(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
