"""`prepare`: the tiles of a request, in latents."""

from __future__ import annotations

from typing import Any

import pytest

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stages.prepare import tiles
from runtime.stages.prepare.size import Size
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.prepare_requests import ask

ABOVE = 2048


def _request(**fields: Any) -> ImageToImageInput:
    return ImageToImageInput.model_validate({"model_name": "m", "prompt": "p"} | fields)


def _size(width: int, height: int) -> Size:
    return Size(width, height, -(-width // 8) * 8, -(-height // 8) * 8)


@pytest.mark.parametrize(
    ("size", "fields", "expected"),
    [
        # (width, height), then tile width and height, stride width and height, in latents
        ((1024, 768), {}, None),
        ((512, 512), {"tile_width": 512, "tile_height": 512}, None),
        ((1024, 768), {"tile_width": 512, "tile_height": 512}, (64, 64, 32, 32)),
        ((1024, 768), {"tile_width": 512}, (64, 96, 32, 96)),
        ((1024, 768), {"tile_height": 256}, (128, 32, 128, 16)),
        ((1024, 768), {"tile_width": 519, "tile_stride_width": 391}, (64, 96, 48, 96)),
        ((1024, 768), {"tile_width": 257}, (32, 96, 16, 96)),
        ((1024, 768), {"tile_width": 512, "tile_stride_width": 2048}, (64, 96, 64, 96)),
        ((1024, 768), {"tile_width": 512, "tile_stride_width": 64}, (64, 96, 8, 96)),
        ((1001, 700), {"tile_width": 1001}, None),  # the padded picture has 1008 pixels
        ((1001, 700), {"tile_width": 1000}, (125, 88, 62, 88)),
        ((4096, 1024), {"tile_width": 4095}, (511, 128, 255, 128)),
        ((4096, 1024), {"tile_height": 1023}, (512, 127, 256, 63)),
    ],
)
def test_the_windows_of_a_request(
    sd15: Checkpoint, size: tuple[int, int], fields: dict[str, Any], expected: tuple[int, int, int, int] | None
) -> None:
    found = tiles.resolve_unet(_request(**fields), _size(*size), sd15)
    assert (found and (found.width, found.height, found.stride_width, found.stride_height)) == expected


@pytest.mark.parametrize(
    ("size", "fields", "expected"),
    [
        ((2048, 2048), {}, None),
        ((2049, 512), {}, (128, 512)),  # half of 2048 pixels; the API's default of 4096 pixels covers the other side
        ((4096, 1024), {}, (128, 512)),
        ((1024, 768), {"tile_width": 512, "tile_height": 512}, (64, 64)),
        ((1024, 768), {"tile_width": 768}, (96, 512)),
        ((1024, 768), {"tile_width": 543, "tile_height": 130}, (64, 16)),  # multiples of 32 pixels
        ((512, 512), {"tile_width": 512, "tile_height": 512}, None),
        ((3000, 600), {"tile_width": 2500}, (128, 512)),  # 2500 would be too long for one call
        ((3000, 600), {"tile_width": 2000}, (248, 512)),
        ((3000, 600), {"tile_height": 512}, (128, 64)),
        ((1001, 700), {"tile_width": 1001, "tile_height": 700}, None),
    ],
)
def test_the_vaes_tile(
    sd15: Checkpoint, size: tuple[int, int], fields: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    found = tiles.resolve_vae(_request(**fields), _size(*size), sd15, ABOVE)
    assert (found and (found.width, found.height)) == expected


def test_a_lower_limit_of_the_vae_makes_tiles_of_half_of_it(sd15: Checkpoint) -> None:
    found = tiles.resolve_vae(_request(), _size(600, 400), sd15, 512)
    assert found and (found.width, found.height) == (32, 512)


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"tile_width": 512, "tile_stride_width": 513}, ["width"]),
        (
            {"tile_width": 512, "tile_stride_width": 2048, "tile_height": 128, "tile_stride_height": 256},
            ["width", "height"],
        ),
        ({"tile_width": 512, "tile_stride_width": 512}, []),
        ({"tile_width": 512, "tile_height": 128}, []),  # strides that are not given are no longer than their tiles
        ({"tile_width": 4096, "tile_height": 4096, "tile_stride_width": 2048, "tile_stride_height": 2048}, []),
    ],
)
def test_a_stride_above_its_tile_is_a_warning(sd15: Checkpoint, fields: dict[str, Any], cut: list[str]) -> None:
    request = _request(**fields)
    found = tiles.warnings(request, tiles.resolve_unet(request, _size(2048, 2048), sd15))
    assert [warning.partition(":")[0] for warning in found] == [f"tile_stride_{side}" for side in cut]
    for warning, side in zip(found, cut, strict=True):
        assert f"{fields[f'tile_stride_{side}']} was cut to {fields[f'tile_{side}']}" in warning


def test_the_plan_has_the_tiles_and_the_warnings(stage: PrepareStage) -> None:
    fields: dict[str, Any] = {"tile_width": 256, "tile_stride_width": 300, "image_size": {"width": 512, "height": 256}}
    plan = ask(stage, **fields).plan
    assert plan.unet_tiles and (plan.unet_tiles.width, plan.unet_tiles.stride_width) == (32, 32)
    assert plan.vae_tile and (plan.vae_tile.width, plan.vae_tile.height) == (32, 512)
    assert len(plan.warnings) == 1 and plan.warnings[0].startswith("tile_stride_width: 300 was cut to 256")
    assert ask(stage, **fields | {"tile_width": 512, "tile_stride_width": None}).plan.unet_tiles is None
