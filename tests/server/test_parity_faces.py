"""FaceID and InstantID (arXiv 2401.07519) of all kinds of checkpoints. `parity` says what is compared.

The reference finds faces by itself: see `tests/reference/faces.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.server.parity import TEXT_TO_IMAGE, Answers, Case, Change, Report, Row, check, fields, loras, rows
from tests.server.test_parity_controlnets import controlnets, half_mask
from tests.server.test_parity_controlnets import with_last as with_last_controlnet
from tests.server.test_parity_ip_adapters import BASE, ip_adapters, with_last
from tests.tiny.face_pack import face_picture

FACE, OTHER = face_picture(("green", 40, 30)), face_picture(("red", 60, 36), seed=2)
TWO_FACES = face_picture(("red", 22, 30), ("green", 66, 34), seed=3)
FACEID, PLUS, PORTRAIT = "faceid.safetensors", "faceid_plus.safetensors", "portrait.safetensors"
INSTANT_ID = "instant_id.safetensors"


def faces(*names: str, images: tuple[Image.Image, ...] = (FACE,), **values: Any) -> Change:
    """Adapters that take a face."""

    def change(case: Case) -> Case:
        found = ip_adapters(*names, images=images, **values)(case)
        pack = case.request.model.parent / "face_pack"
        adapters = tuple(replace(adapter, face_pack=pack) for adapter in found.request.ip_adapters)
        return replace(found, request=replace(found.request, ip_adapters=adapters))

    return change


def conditioned_by(adapter: int) -> Change:
    """The last ControlNet takes the tokens of this IP-Adapter."""
    return with_last_controlnet(ip_adapter=adapter)


def both(*changes: Change) -> Change:
    def change(case: Case) -> Case:
        for one in changes:
            case = one(case)
        return case

    return change


def and_base(case: Case) -> Case:
    """A base adapter besides."""
    adapters = ip_adapters(BASE)(case).request.ip_adapters
    return replace(case, request=replace(case.request, ip_adapters=(*case.request.ip_adapters, *adapters)))


IDENTITY_NET = both(faces(INSTANT_ID), controlnets(""))
FACES: dict[str, tuple[Change, ...]] = {
    "faceid": (faces(FACEID),),
    "faceid_bin": (faces("faceid.bin"),),
    "portrait": (faces(PORTRAIT, images=(FACE, OTHER)),),
    "plus_v2": (faces(PLUS),),
    "plus_v1": (faces(PLUS), with_last(shortcut=False)),
    "other_face": (faces(PLUS), with_last(images=(OTHER,))),
    "largest_face": (faces(FACEID), with_last(images=(TWO_FACES,))),
    "two_images": (faces(FACEID), with_last(images=(FACE, OTHER))),
    "text_to_image": (TEXT_TO_IMAGE, faces(PLUS)),
    "guidance_off": (fields(guidance_scale=1.0), faces(PLUS)),
    "scale": (faces(FACEID), with_last(scale=0.3)),
    "num_images_2": (faces(FACEID), fields(num_images=2)),
    "loras": (faces(FACEID), loras("peft", "kohya")),
    "mask": (faces(FACEID), with_last(mask=half_mask())),
    "with_base": (faces(FACEID), and_base),
    "noising_factor": (faces(FACEID), with_last(noising_factor=0.3)),
    "noising_factor_plus": (faces(PLUS, images=(FACE, OTHER)), with_last(noising_factor=0.3)),
    "instant_id_adapter": (faces(INSTANT_ID),),
    "identity_net": (IDENTITY_NET, conditioned_by(0)),
    "identity_net_two_images": (both(IDENTITY_NET, conditioned_by(0)), with_last(images=(FACE, OTHER))),
    "identity_net_guess_mode": (both(IDENTITY_NET, conditioned_by(0)), fields(controlnet_guess_mode=True)),
    "identity_net_guidance_off": (both(IDENTITY_NET, conditioned_by(0)), fields(guidance_scale=1.0)),
    "identity_net_mask": (both(IDENTITY_NET, conditioned_by(0)), with_last_controlnet(mask=half_mask())),
    "identity_net_start": (both(IDENTITY_NET, conditioned_by(0)), with_last_controlnet(start=0.4)),
    "identity_net_num_images_2": (both(IDENTITY_NET, conditioned_by(0)), fields(num_images=2)),
    "identity_net_and_another": (both(faces(INSTANT_ID), controlnets("", "_b")), conditioned_by(0)),
    "identity_net_of_faceid": (both(faces(INSTANT_ID, FACEID), controlnets("")), conditioned_by(1)),
}


@pytest.mark.parametrize("row", rows(FACES, shift=2))
def test_latents_equal_those_of_diffusers(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
