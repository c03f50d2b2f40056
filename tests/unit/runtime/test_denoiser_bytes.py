"""The memory of a job in the denoiser: the estimate against what its networks really make."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.conditioning.ip_masks import PictureMasks
from runtime.networks.architecture import architecture_of
from runtime.networks.build import build
from runtime.plan import CONTROL_IMAGE, IP_MASK, IpAdapterPlan, PicturePlan, Plan
from runtime.stages.prepare.denoiser_bytes import call_bytes, job_bytes
from runtime.stages.prepare.memory_estimate import need
from runtime.window import Window
from tests.unit.runtime.plans import make_plan

# As published for SD 1.5 and SDXL.
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768},
    "sdxl": {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 768,
    },
}


def _plan(checkpoint: Checkpoint, unet: dict[str, Any], **fields: Any) -> Plan:
    component = checkpoint.unet.model_copy(update={"config": unet})
    return make_plan(checkpoint.model_copy(update={"unet": component}), **fields)


def _with_controlnets(plan: Plan, count: int) -> Plan:
    network = Component(role="controlnet", config={}, files=())
    images = tuple(
        PicturePlan(field=CONTROL_IMAGE.format(n), tensor="CONTROLS", height=plan.height, width=plan.width, offset=0)
        for n in range(count)
    )
    return plan.model_copy(update={"controlnets": (network,) * count, "pictures": images})


def _row_bytes(unet: dict[str, Any], height: int, width: int) -> int:
    """The bytes of the residuals that a ControlNet makes for a row."""
    network = build(architecture_of("controlnet", unet))
    with torch.device("meta"):
        made = network(
            latent=torch.empty(1, 4, height, width),
            t=torch.empty(1),
            text=torch.empty(1, 77, 768),
            condition=torch.empty(1, 3, 8 * height, 8 * width),
        )
    return sum(residual.nbytes for residual in made["residuals"])


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize(
    ("block", "images", "rows"), [(0, 1, 2), (0, 8, 2), (1, 8, 2), (3, 8, 6), (8, 1, 8), (4, 3, 4)]
)
def test_the_residuals_of_a_slice_are_counted(sd15: Checkpoint, kind: str, block: int, images: int, rows: int) -> None:
    """A sum and an answer for each of its rows, and two to add them; rows of a block that are filled up count, too."""
    plain = _plan(sd15, UNETS[kind], size=200, height=136, num_images=images)
    for count in (1, 4):
        found = need(_with_controlnets(plain, count), 0, block_rows=block).own - need(plain, 0, block_rows=block).own
        pictures = count * 200 * 136 * 3 * (3 + 4)  # three copies of the bytes, and float32
        assert found == pictures + 2 * (rows + 2) * _row_bytes(UNETS[kind], 17, 25)


def test_the_residuals_of_a_window_are_counted(sd15: Checkpoint) -> None:
    plain = _plan(sd15, UNETS["sd15"], size=512, tile_width=128, tile_height=192, num_images=4)
    found = job_bytes(_with_controlnets(plain, 1), 2) - job_bytes(plain, 2)
    assert found == 512 * 512 * 3 * 4 + 2 * (2 + 2) * _row_bytes(UNETS["sd15"], 24, 16)


def _with_adapters(plan: Plan, pictures: int, masked: int, tokens: int = 4) -> Plan:
    """Two adapters; the first `masked` ones have a mask."""
    projection = Component(role="image_projection", config={"projection": "plus", "tokens": tokens}, files=())
    adapter = IpAdapterPlan(projection=projection, images=("",) * pictures, scales=(1.0,), widths=(16,))
    masks = tuple(
        PicturePlan(field=IP_MASK.format(n), tensor="CONTROLS", height=plan.height, width=plan.width, offset=0)
        for n in range(masked)
    )
    return plan.model_copy(update={"ip_adapters": (adapter, adapter), "pictures": masks})


@pytest.mark.parametrize("tiles", [{}, {"tile_width": 256, "tile_height": 256}])
def test_each_resized_mask_is_counted_once(sd15: Checkpoint, tiles: dict[str, int]) -> None:
    """Not for each picture: an adapter may have 64."""
    plan = _plan(sd15, UNETS["sd15"], size=512, **tiles)
    windows = 9 if tiles else 1
    side = 32 if tiles else 64
    pixels = torch.ones(1, 512, 512, dtype=torch.bool)
    resized = PictureMasks(pixels, torch.tensor([0])).resize(Window(0, 0, side, side), 8, UNETS["sd15"])
    without, masked = (job_bytes(_with_adapters(plan, 64, masks), 2) for masks in (0, 1))
    assert masked - without == 512 * 512 * 3 * 4 + windows * sum(mask.nbytes for mask in resized.masks)


@pytest.mark.parametrize("kind", UNETS)
def test_the_attention_to_many_pictures_fits_into_the_peak(sd15: Checkpoint, kind: str) -> None:
    """Under a mask, each picture has an attention of its own, and all are computed at once."""
    plan = _plan(sd15, UNETS[kind], size=512)
    one, many = (call_bytes(_with_adapters(plan, pictures, 2, tokens=16), 2) for pictures in (1, 64))
    assert many == 64 * one
    widths, heads = UNETS[kind].get("block_out_channels", [320])[0], UNETS[kind].get("attention_head_dim", [8])[0]
    scores, attended = 2 * 2 * heads * 64 * 64 * 16 * 4, 2 * 2 * 64 * 64 * widths * 4
    assert one >= 2 * attended + 3 * scores
    assert need(_with_adapters(plan, 64, 2, tokens=16), 0).peak == many > need(plan, 0).peak


@pytest.mark.parametrize("name", ["attention_head_dim", "layers_per_block", "num_attention_heads"])
@pytest.mark.parametrize("count", [1, 6])
def test_lists_of_a_wrong_length_are_no_error_here(sd15: Checkpoint, name: str, count: int) -> None:
    plan = _plan(sd15, {**UNETS["sd15"], name: [2] * count}, size=64)
    with_both = _with_controlnets(_with_adapters(plan, 1, 0), 1)
    assert need(with_both, 0).own > need(plan, 0).own and call_bytes(with_both, 2) > 0


def test_a_plain_request_has_no_more(sd15: Checkpoint) -> None:
    plan = make_plan(sd15, size=512, num_images=2)
    assert call_bytes(plan, 2) == 0
    assert job_bytes(plan, 2) == 4 * math.prod((4, 64, 64)) * 2 * (2 + 2)
