"""IC-Light of SD 1.5, with the foreground alone and with a background. `parity` says what is compared.

The reference is the authors' demo: offsets are added to the UNet's weights, and the latents of the pictures follow the
noisy latents as further input channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorikeet import Client
from tests.reference import ReferenceLora, reference, relative_error
from tests.server.parity import TOLERANCE, Case, Change, Report, base, fields, loras, picture, submit
from tests.server.test_parity_controlnets import controlnets

FOREGROUND, BACKGROUND = picture(7), picture(8)


@dataclass(frozen=True)
class Row:
    """`served`: the file that the request to the server names; the reference takes `model`."""

    model: str
    pictures: tuple[Image.Image, ...]
    changes: tuple[Change, ...] = ()
    served: str = ""


ROWS = {
    "foreground": Row("fc", (FOREGROUND,)),
    "foreground_in_comfyui_names": Row("fc", (FOREGROUND,), served="fc_ldm"),
    "background": Row("fbc", (FOREGROUND, BACKGROUND)),
    "text_to_image": Row("fc", (FOREGROUND,), (fields(image=None, width=96, height=64),)),
    "guidance_off": Row("fbc", (FOREGROUND, BACKGROUND), (fields(guidance_scale=1.0),)),
    "num_images_2": Row("fc", (FOREGROUND,), (fields(num_images=2),)),
    "loras": Row("fc", (FOREGROUND,), (loras("peft"),)),
    "controlnet": Row("fbc", (FOREGROUND, BACKGROUND), (controlnets(""),)),
}
IN_EACH_TEST = ("foreground", "background", "loras", "text_to_image")


@cache
def relit_unet(tiny: Path, model: str) -> UNet2DConditionModel:
    """The checkpoint's UNet with the offsets of a file, and with a first layer for its channels."""
    unet = UNet2DConditionModel.from_pretrained(tiny / "sd15" / "unet")
    offsets = load_file(tiny / "ic_light" / f"{model}.safetensors")
    wide = offsets["conv_in.weight"]
    conv_in = torch.nn.Conv2d(wide.shape[1], len(wide), 3, padding=1)
    with torch.no_grad():
        conv_in.weight.zero_()
        conv_in.weight[:, :4] = unet.conv_in.weight
    conv_in.bias = unet.conv_in.bias
    unet.conv_in = conv_in
    unet.load_state_dict({name: tensor + offsets[name] for name, tensor in unet.state_dict().items()})
    return unet


@torch.no_grad()
def pictures_latents(tiny: Path, pictures: tuple[Image.Image, ...]) -> torch.Tensor:
    """[1, 4 for each picture, h, w]: the modes of the posteriors, scaled."""
    vae = AutoencoderKL.from_pretrained(tiny / "sd15" / "vae")
    pixels = [torch.from_numpy(np.array(one)).permute(2, 0, 1)[None].float() / 127.5 - 1 for one in pictures]
    modes = [vae.encode(one).latent_dist.mode() * vae.config.scaling_factor for one in pixels]
    return torch.cat(modes, dim=1)


def with_zero_channels(lora: ReferenceLora, channels: int, folder: Path) -> ReferenceLora:
    """A copy whose product for the first layer has 0 for the added input channels, because PEFT wants all of them."""
    with safe_open(lora.path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if "conv_in.lora_A" in name:
            tensors[name] = torch.nn.functional.pad(tensor, (0, 0, 0, 0, 0, channels - tensor.shape[1]))
    save_file(tensors, folder / lora.path.name, metadata)
    return replace(lora, path=folder / lora.path.name)


def expect(tiny: Path, case: Case, model: str, pictures: tuple[Image.Image, ...], folder: Path) -> np.ndarray[Any, Any]:
    unet, concat = relit_unet(tiny, model), pictures_latents(tiny, pictures)
    copies = tuple(with_zero_channels(lora, unet.conv_in.in_channels, folder) for lora in case.request.loras)

    def add_pictures(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        sample = inputs[0]
        return (torch.cat([sample, concat.expand(len(sample), -1, -1, -1)], dim=1), *inputs[1:])

    hook = unet.register_forward_pre_hook(add_pictures)
    try:
        return reference(replace(case.request, loras=copies), unet).latents
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "name", [name if name in IN_EACH_TEST else pytest.param(name, marks=pytest.mark.verify) for name in ROWS]
)
def test_latents_equal_those_of_the_authors_demo(
    client: Client, tiny: Path, tmp_path: Path, name: str, record_property: Report
) -> None:
    check(client, tiny, tmp_path, name, record_property)


def check(client: Client, tiny: Path, folder: Path, name: str, record_property: Report) -> None:
    """The server's latents equal the reference's, which another foreground moves. `folder` is for copies of LoRAs."""
    row = ROWS[name]
    case = base(tiny, "sd15")
    for change in row.changes:
        case = change(case)
    names = ("ic_light_image_url", "ic_light_model_background_image_url")
    case.served.update(zip(names, row.pictures, strict=False))
    case.served["ic_light_model_url"] = str(tiny / "ic_light" / f"{row.served or row.model}.safetensors")
    latents = submit(client, case).result().latents
    assert latents is not None
    expected = expect(tiny, case, row.model, row.pictures, folder)
    record_property("relative_error", relative_error(latents, expected))
    assert relative_error(latents, expected) < TOLERANCE
    others = (picture(9), *row.pictures[1:])
    assert relative_error(expect(tiny, case, row.model, others, folder), expected) > 10 * TOLERANCE
