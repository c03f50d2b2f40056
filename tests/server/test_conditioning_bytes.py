"""Each kind of conditioning gives the same bytes alone and while requests of all other kinds are in the step loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorikeet import Client
from tests.server.parity import Case, Change, base, fields, loras, picture, submit
from tests.server.test_parity_controlnets import controlnets, half_mask
from tests.server.test_parity_faces import FACEID, INSTANT_ID, conditioned_by, faces
from tests.server.test_parity_ip_adapters import BASE, FULL, PLUS, ip_adapters


def served(**values: Any) -> Change:
    """Fields of which the reference knows nothing."""

    def change(case: Case) -> Case:
        case.served.update(values)
        return case

    return change


def _ic_light(case: Case) -> Case:
    path = case.request.model.parent / "ic_light" / "fc.safetensors"
    return served(ic_light_model_url=str(path), ic_light_image_url=picture(7))(case)


KINDS: dict[str, tuple[Change, ...]] = {
    "plain": (),
    "controlnet": (controlnets(""),),
    "two_controlnets": (controlnets("", "_b", mask=half_mask()), fields(num_images=2)),
    "guess_mode": (controlnets("_b"), fields(controlnet_guess_mode=True)),
    "base": (ip_adapters(BASE),),
    "plus_masked": (ip_adapters(PLUS, mask=half_mask()), loras("peft")),
    "full": (ip_adapters(FULL), fields(guidance_scale=1.0)),
    "two_adapters": (ip_adapters(BASE, PLUS), controlnets("")),
    "face": (faces(FACEID), loras("peft")),
    "identity_net": (faces(INSTANT_ID), controlnets(""), conditioned_by(0)),
    "ic_light": (_ic_light,),
    "long_prompt": (served(prompt="a (red:1.3) fish, " * 30, prompt_weighting=True), controlnets("")),
    "tiles": (served(tile_width=128, tile_height=128), fields(image=picture(1).resize((160, 136))), loras("kohya")),
}


def assert_equal_bytes(client: Client, tiny: Path) -> None:
    cases = {}
    for name, changes in KINDS.items():
        case = base(tiny, "sd15")
        for change in changes:
            case = change(case)
        cases[name] = case
    alone = {name: submit(client, case).result().files for name, case in cases.items()}
    jobs = {name: submit(client, case) for name, case in cases.items()}
    assert {name: job.result().files for name, job in jobs.items()} == alone
    assert len({files[0] for files in alone.values()}) == len(cases), "two kinds of conditioning give one picture"


def test_bytes_are_equal_alone_and_among_others(client: Client, tiny: Path) -> None:
    assert_equal_bytes(client, tiny)
