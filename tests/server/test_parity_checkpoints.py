"""The same weights in every form that checkpoints have, and other UNets. `parity` says what is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from lorikeet import Client
from tests.reference import relative_error
from tests.server.parity import (
    KINDS,
    TOLERANCE,
    Case,
    Change,
    Report,
    base,
    check,
    expect,
    fields,
    latents,
    loras,
    moves,
    picture,
    submit,
)

FORMS = {
    "sd15": ("sd15.safetensors", "sd15-diffusers.safetensors"),
    "sd2": ("sd2.safetensors",),
    "sdxl": ("sdxl.safetensors",),
}
FILES = [(kind, name) for kind, names in FORMS.items() for name in names]


def served_as(name: str) -> Change:
    """The server reads a single file, the oracle the folder that it was made from."""
    return lambda case: replace(case, served={"model_name": str(case.request.model.parent / "single" / name)})


def other_unet(*place: str) -> Change:
    return lambda case: replace(case, unet=case.request.model.parent.joinpath(*place))


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize("worn", [(), ("peft", "kohya")], ids=["alone", "two_loras"])
def test_a_single_file_is_its_folder(
    client: Client, tiny: Path, kind: str, name: str, worn: tuple[str, ...], record_property: Report
) -> None:
    case = served_as(name)(loras(*worn)(base(tiny, kind)))
    error = relative_error(latents(submit(client, case)), expect(case))
    record_property("relative_error", error)
    assert error < TOLERANCE
    for other in KINDS:
        if other != kind:
            assert moves(expect(loras(*worn)(base(tiny, other))), expect(case))


@pytest.mark.parametrize("kind", ["sd15"])
@pytest.mark.parametrize("scheduler", ["LCM", "Euler"])
def test_an_lcm_distilled_unet(client: Client, tiny: Path, kind: str, scheduler: str, record_property: Report) -> None:
    changes = (fields(scheduler=scheduler), other_unet("lcm", "unet"))
    check(client, base(tiny, kind), changes, record_property)


def test_an_lcm_distilled_unet_takes_the_guidance_scale_as_an_input(
    client: Client, tiny: Path, record_property: Report
) -> None:
    changes = (fields(scheduler="LCM"), other_unet("lcm", "unet"), fields(guidance_scale=1.5))
    check(client, base(tiny, "sd15"), changes, record_property)


def test_an_lcm_distilled_unet_wears_loras(client: Client, tiny: Path, record_property: Report) -> None:
    changes = (fields(scheduler="LCM"), other_unet("lcm", "unet"), loras("peft", "kohya"))
    check(client, base(tiny, "sd15"), changes, record_property)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_is_the_round_trip_of_the_vae(client: Client, tiny: Path, kind: str) -> None:
    """diffusers' pipelines have no steps to run there; AutoencoderKL.forward is the reference."""
    case = base(tiny, kind)
    vae = AutoencoderKL.from_pretrained(case.request.model / "vae")
    mean = vae.encode(VaeImageProcessor().preprocess(picture())).latent_dist.mode() * vae.config.scaling_factor
    asked = Case(case.request, served={"noise_strength": 0.0})
    assert relative_error(latents(submit(client, asked)), mean.detach().numpy()) < TOLERANCE
