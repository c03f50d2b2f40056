"""The same weights in every form that checkpoints have, and other UNets. `parity` says what is compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from tests.reference import relative_error
from tests.server.parity import (
    KINDS,
    TOLERANCE,
    Answers,
    Case,
    Change,
    Report,
    Row,
    check,
    expect,
    fields,
    loras,
    moves,
    picture,
    row,
)

FORMS = {
    "sd15.safetensors": "sd15",
    "sd15-diffusers.safetensors": "sd15",
    "sd2.safetensors": "sd2",
    "sdxl.safetensors": "sdxl",
}
WORN: dict[str, tuple[Change, ...]] = {"alone": (), "two_loras": (loras("peft", "kohya"),)}


def served_as(name: str) -> Change:
    """The server reads a single file, the oracle the folder that it was made from."""
    return lambda case: replace(case, served={"model_name": str(case.request.model.parent / "single" / name)})


def other_unet(*place: str) -> Change:
    return lambda case: replace(case, unet=case.request.model.parent.joinpath(*place))


def of_strength_0(case: Case) -> Case:
    """The reference cannot be asked for it: diffusers' pipelines have no steps to run there."""
    return replace(case, served={"noise_strength": 0.0})


@pytest.mark.parametrize(
    "row",
    [
        row(f"{worn}-{name}", kind, (*changes, served_as(name)))
        for worn, changes in WORN.items()
        for name, kind in FORMS.items()
    ],
)
def test_a_single_file_is_its_folder(answers: Answers, row: Row, record_property: Report) -> None:
    tiny = answers.tiny
    expected = expect(tiny, row.case(tiny))
    error = relative_error(answers.latents(row), expected)
    record_property("relative_error", error)
    assert error < TOLERANCE
    for other in KINDS:
        if other != row.kind:
            assert moves(expect(tiny, Row(other, row.changes).case(tiny)), expected)


LCM = other_unet("lcm", "unet")
LCM_UNET: dict[str, tuple[Change, ...]] = {
    "LCM": (fields(scheduler="LCM"), LCM),
    "Euler": (fields(scheduler="Euler"), LCM),
    # which it takes as an input
    "guidance_scale": (fields(scheduler="LCM"), LCM, fields(guidance_scale=1.5)),
    "two_loras": (fields(scheduler="LCM"), LCM, loras("peft", "kohya")),
}


@pytest.mark.parametrize("row", [row(name, "sd15", changes) for name, changes in LCM_UNET.items()])
def test_an_lcm_distilled_unet(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


@pytest.mark.parametrize("row", [row(kind, kind, (of_strength_0,)) for kind in KINDS])
def test_strength_0_is_the_round_trip_of_the_vae(answers: Answers, row: Row) -> None:
    """AutoencoderKL.forward is the reference."""
    vae = AutoencoderKL.from_pretrained(answers.tiny / row.kind / "vae")
    mean = vae.encode(VaeImageProcessor().preprocess(picture())).latent_dist.mode() * vae.config.scaling_factor
    assert relative_error(answers.latents(row), mean.detach().numpy()) < TOLERANCE
