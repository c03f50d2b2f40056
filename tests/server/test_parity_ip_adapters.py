"""IP-Adapters (arXiv 2308.06721) of all kinds of checkpoints. `parity` says what is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.reference import ReferenceIpAdapter
from tests.server.parity import TEXT_TO_IMAGE, Answers, Case, Change, Report, Row, check, fields, loras, picture, rows
from tests.server.test_parity_controlnets import controlnets, half_mask

FIRST, SECOND = picture(4), picture(5)
TALL = picture(6).resize((70, 111), Image.Resampling.BICUBIC)
BY_BLOCK = '{"down": {"block_1": [0.0, 1.2]}, "mid": 0.5, "up": 0.7}'


def ip_adapters(*names: str, images: tuple[Image.Image, ...] = (FIRST,), **values: Any) -> Change:
    """The adapters of these file names, made for the checkpoint, all with `images` and `values`."""

    def change(case: Case) -> Case:
        model = case.request.model
        folder = model.parent / "ip_adapters" / model.name
        adapters = tuple(replace(ReferenceIpAdapter(folder / name, images), **values) for name in names)
        return replace(case, request=replace(case.request, ip_adapters=adapters))

    return change


def with_last(**values: Any) -> Change:
    """Other values of the last adapter."""

    def change(case: Case) -> Case:
        *first, last = case.request.ip_adapters
        return replace(case, request=replace(case.request, ip_adapters=(*first, replace(last, **values))))

    return change


# diffusers' resized masks end early here: a mask of ones would turn an adapter off at the bottom.
NARROW = fields(image=None, width=72, height=384)
BASE, PLUS, FULL = "base.safetensors", "plus.safetensors", "full.safetensors"
IP_ADAPTERS: dict[str, tuple[Change, ...]] = {
    "base": (ip_adapters(BASE),),
    "base_bin": (ip_adapters("base.bin"),),
    "plus": (ip_adapters(PLUS),),
    "full": (ip_adapters(FULL),),
    "text_to_image": (TEXT_TO_IMAGE, ip_adapters(PLUS)),
    "guidance_off": (fields(guidance_scale=1.0), ip_adapters(BASE)),
    "other_image": (ip_adapters(BASE), with_last(images=(TALL,))),
    "two_images": (ip_adapters(BASE), with_last(images=(FIRST, SECOND))),
    "two_adapters": (ip_adapters(BASE), ip_adapters(BASE, PLUS)),
    "num_images_2": (ip_adapters(BASE, FULL), fields(num_images=2)),
    "scale": (ip_adapters(PLUS), with_last(scale=0.3)),
    "scale_json": (ip_adapters(BASE), with_last(scale=BY_BLOCK)),
    "mask": (ip_adapters(BASE), with_last(mask=half_mask())),
    "mask_two_images": (ip_adapters(PLUS, images=(FIRST, SECOND)), with_last(mask=half_mask())),
    "two_masks": (ip_adapters(BASE, PLUS, mask=half_mask()), with_last(mask=half_mask().rotate(180))),
    "one_of_two_masked": (ip_adapters(BASE, PLUS), with_last(mask=half_mask())),
    "one_of_two_masked_narrow": (NARROW, ip_adapters(BASE, PLUS), with_last(mask=half_mask((72, 384)))),
    "unmasked_two_images": (
        NARROW,
        ip_adapters(BASE, PLUS, images=(FIRST, SECOND)),
        with_last(mask=half_mask((72, 384))),
    ),
    "noising_factor": (ip_adapters(BASE), with_last(noising_factor=0.5)),
    "noising_factor_plus": (ip_adapters(PLUS, images=(FIRST, SECOND)), with_last(noising_factor=0.8)),
    "loras": (ip_adapters(BASE), loras("peft", "kohya")),
    "controlnet": (ip_adapters(BASE), controlnets("")),
}


@pytest.mark.parametrize("row", rows(IP_ADAPTERS, shift=1))
def test_latents_equal_those_of_diffusers(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
