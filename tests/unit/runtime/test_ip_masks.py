"""IP-Adapter masks: resized once for a job, one for each adapter that has one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.conditioning.image_prompt import ImagePrompts
from runtime.conditioning.ip_masks import LevelMasks, PictureMasks
from runtime.networks.ip_masks import adapter_masks
from runtime.plan import IP_MASK, IpAdapterPlan, PicturePlan, Plan
from runtime.stages.denoiser.image_prompt_masks import image_prompt_masks
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from runtime.window import Window
from tests.unit.runtime.engines import noise
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.stand_in import answer, answered, fake_bound, tensor

LEVELS = {"block_out_channels": [8] * 4, "down_block_types": ["DownBlock2D"] * 4}


def _given(masks: LevelMasks, level: int) -> torch.Tensor:
    """The mask of each adapter at a level, as a call of one row gets it."""
    return adapter_masks(masks.masks[level][None], masks.index[None])[0]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 9), (9, 48), (25, 17), (16, 128)])
def test_each_level_has_the_masks_of_diffusers(height: int, width: int) -> None:
    pixels = noise(2, 8 * height, 8 * width) > 0
    found = PictureMasks(pixels, torch.tensor([0, 0, 1])).resize(Window(0, 0, height, width), 8, LEVELS)
    for level in range(4):
        queries = height * width
        expected = [IPAdapterMaskProcessor.downsample(mask[None].float(), 1, queries, 1).flatten() for mask in pixels]
        assert torch.equal(_given(found, level), torch.stack([expected[0], *expected]))
        height, width = -(-height // 2), -(-width // 2)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 9), (25, 17)])
def test_an_adapter_without_a_mask_acts_everywhere(height: int, width: int) -> None:
    """A resized mask of ones would be shorter than a narrow picture, and end in zeros."""
    pixels = torch.zeros(1, 8 * height, 8 * width, dtype=torch.bool)
    found = PictureMasks(pixels, torch.tensor([-1, 0])).resize(Window(0, 0, height, width), 8, LEVELS)
    for level in range(4):
        everywhere, masked = _given(found, level)
        assert torch.equal(everywhere, torch.ones_like(everywhere)) and not masked.any()


def test_a_level_smaller_than_a_row_has_a_mask() -> None:
    pixels = torch.ones(1, 8, 72, dtype=torch.bool)
    found = PictureMasks(pixels, torch.tensor([0])).resize(Window(0, 0, 1, 9), 8, LEVELS)
    assert [_given(found, level).numel() for level in range(4)] == [9, 5, 3, 2]
    assert all(_given(found, level).min() > 0.99 for level in range(4))


def test_a_window_has_its_part_of_the_mask() -> None:
    pixels = noise(1, 64, 96) > 0
    found = PictureMasks(pixels, torch.tensor([0])).resize(Window(2, 3, 4, 5), 8, LEVELS)
    part = PictureMasks(pixels[:, 16:48, 24:64], torch.tensor([0])).resize(Window(0, 0, 4, 5), 8, LEVELS)
    assert all(map(torch.equal, found.masks, part.masks))


def test_each_row_of_a_call_has_its_own_masks() -> None:
    masks, index = noise(2, 3, 10), torch.tensor([[0, 0], [2, 1]])
    expected = torch.stack([masks[0, [0, 0]], masks[1, [2, 1]]])
    assert torch.equal(adapter_masks(masks, index), expected)


def _plan(checkpoint: Checkpoint, pictures: int, **fields: Any) -> Plan:
    """Two adapters: one of this many pictures with a mask, and one without."""
    urls = [f"tensor:{number}" for number in range(pictures)]
    adapters = [
        {"path": "a", "ip_adapter_image_url": urls, "ip_adapter_mask_url": "tensor:0"},
        {"path": "a", "ip_adapter_image_url": "tensor:0"},
    ]
    plan = make_plan(checkpoint, ip_adapter=adapters, **fields)
    projection = Component(role="image_projection", config={"projection": "base", "tokens": 4}, files=())
    made = [
        IpAdapterPlan(projection=projection, images=images, scales=(1.0,), widths=(16,))
        for images in (tuple(urls), ("tensor:0",))
    ]
    mask = PicturePlan(field=IP_MASK.format(0), tensor="CONTROLS", height=plan.height, width=plan.width, offset=0)
    assert isinstance(plan.request, ImageToImageInput)
    return plan.model_copy(update={"ip_adapters": tuple(made), "pictures": (mask,)})


def test_the_pictures_of_an_adapter_share_its_mask(sd15: Checkpoint) -> None:
    plan = _plan(sd15, pictures=3)
    grey = torch.zeros(64, 64, 3, dtype=torch.uint8)
    grey[:, 32:] = 255
    found = image_prompt_masks(plan, {"CONTROLS": grey.flatten().numpy()})
    assert found is not None and found.pixels.dtype == torch.bool
    assert torch.equal(found.pixels, grey[None, :, :, 0] > 0)
    assert found.index.tolist() == [0, 0, 0, -1]


def test_a_job_resizes_each_mask_once(sd15: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in each call, and not for each picture."""
    sizes = []
    downsample = IPAdapterMaskProcessor.downsample

    def count(mask: torch.Tensor, *args: int) -> torch.Tensor:
        sizes.append(args[1])
        found: torch.Tensor = downsample(mask, *args)
        return found

    monkeypatch.setattr(IPAdapterMaskProcessor, "downsample", staticmethod(count))
    plan = _plan(sd15, pictures=3, scheduler="DDIM", num_inference_steps=3, num_images=2)
    masks = PictureMasks(torch.ones(1, 64, 64, dtype=torch.bool), torch.tensor([0, 0, 0, -1]))
    prompts = ImagePrompts(noise(2, 4, 4, 16, seed=1), noise(2, 4, 4, 16, seed=2), torch.zeros(4, 4))
    posterior = torch.zeros(0, 4, 8, 8)
    conditions = Conditions(noise(2, 77, 32), torch.zeros(2, 0), posterior, posterior, prompts, ip_masks=masks)
    job = Job(plan, conditions, plan_schedule(plan), fake_bound())
    asks = []
    while not job.done:
        asks += answered(job.step(), lambda ask: {"prediction": answer(tensor(ask, "latent"), tensor(ask, "t"))})[0][0]
    assert len(asks) == 3 * 2 * 2
    assert sizes == [64, 16, 4, 1]
    for ask in asks:
        assert [tuple(mask.shape) for mask in ask.inputs["ip_masks"] or ()] == [(2, size) for size in sizes]
        assert tensor(ask, "ip_mask_index").tolist() == [0, 0, 0, 1]
