"""ControlNets (arXiv 2302.05543) of all kinds of checkpoints. `parity` says what is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.reference import ReferenceControlNet
from tests.server.parity import Answers, Case, Change, Report, Row, check, fields, loras, picture, rows

CONTROL, OTHER = picture(2), picture(3)
WIDE = CONTROL.resize((128, 64), Image.Resampling.BICUBIC)


def half_mask(size: tuple[int, int] = CONTROL.size) -> Image.Image:
    """White on the left, black on the right, with a grey edge."""
    mask = Image.linear_gradient("L").rotate(90).resize(size)
    return mask.point(lambda value: min(max(4 * value - 384, 0), 255)).convert("RGB")


def controlnets(*names: str, images: tuple[Image.Image, ...] = (CONTROL, OTHER), **values: Any) -> Change:
    """The ControlNets `<kind><name>` of the checkpoint's kind, all with `values`."""

    def change(case: Case) -> Case:
        model = case.request.model
        folder = model.parent / "controlnets"
        found = [
            ReferenceControlNet(folder / f"{model.name}{name}", image)
            for name, image in zip(names, images, strict=False)
        ]
        changed = tuple(replace(one, **values) for one in found)
        return replace(case, request=replace(case.request, controlnets=changed))

    return change


def served_as(ending: str) -> Change:
    """The request to the server names a single file of the ControlNet."""

    def change(case: Case) -> Case:
        path = case.request.model.parent / "controlnets" / f"{case.request.model.name}{ending}"
        return with_last(served=path)(controlnets("")(case))

    return change


def with_last(**values: Any) -> Change:
    """Other values of the last ControlNet."""

    def change(case: Case) -> Case:
        *first, last = case.request.controlnets
        return replace(case, request=replace(case.request, controlnets=(*first, replace(last, **values))))

    return change


def text_to_image(case: Case) -> Case:
    """Without an init image and `image_size`: the control image's size."""
    return replace(fields(image=None, width=CONTROL.width, height=CONTROL.height)(case), served={"image_size": None})


def wide_control_image(case: Case) -> Case:
    """As fal does it: the control image's size wins, the init image is resized to it bilinearly."""
    image = case.request.image
    assert image is not None
    controlled = controlnets("", images=(WIDE,))(case)
    resized = replace(controlled.request, image=image.resize(WIDE.size, Image.Resampling.BILINEAR))
    return replace(controlled, request=resized, served={**case.served, "image": image})


GUESS_MODE = fields(controlnet_guess_mode=True)
CONTROLNETS: dict[str, tuple[Change, ...]] = {
    "controlnet": (controlnets(""),),
    "original_file": (served_as("_original.safetensors"),),
    "original_pickle": (served_as("_original.pth"),),
    "one_file": (served_as("_file.safetensors"),),
    "text_to_image": (text_to_image, controlnets("")),
    "two": (controlnets(""), controlnets("", "_b")),
    "conditioning_scale": (controlnets(""), with_last(conditioning_scale=0.4)),
    "start_percentage": (controlnets(""), with_last(start=0.4)),
    "end_percentage": (controlnets(""), with_last(end=0.6)),
    "guess_mode": (controlnets(""), GUESS_MODE),
    "guess_mode_text_to_image": (text_to_image, controlnets(""), GUESS_MODE),
    "guidance_off": (controlnets(""), fields(guidance_scale=1.0)),
    "num_images_2": (controlnets("", "_b"), fields(num_images=2)),
    "mask": (controlnets(""), with_last(mask=half_mask())),
    "two_masks": (controlnets("", "_b", mask=half_mask()), with_last(mask=half_mask().rotate(180))),
    "masked_guess_mode": (controlnets("", mask=half_mask()), GUESS_MODE),
    "pooled": (controlnets("_pooled"),),
    "pooled_mask": (controlnets("_pooled"), with_last(mask=half_mask())),
    "loras": (controlnets(""), loras("peft", "kohya")),
    "wide": (controlnets(""), wide_control_image),
}


@pytest.mark.parametrize("row", rows(CONTROLNETS))
def test_latents_equal_those_of_diffusers(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
