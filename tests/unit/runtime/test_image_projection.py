"""The networks of IP-Adapters compute what diffusers computes with the files that it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

from runtime.checkpoints.read_ip_adapter import read_ip_adapter
from runtime.networks.architecture import architecture_of
from runtime.networks.build import build, parameters
from tests.tiny.face_pack import EMBEDDING
from tests.tiny.vision import WIDTH as ENCODER_WIDTH
from tests.unit.runtime.engines import assert_near, noise
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest

ROWS, PATCHES = 2, 17


def network(path: Path) -> nn.Module:
    component = read_ip_adapter(digest(path))
    built, weights = build(architecture_of("image_projection", component.config)), base_tensors(component)
    for name, (module, attribute, shape) in parameters(built).items():
        module._parameters[attribute] = nn.Parameter(weights[name].float().reshape(shape), requires_grad=False)
    return built


@pytest.fixture(scope="module")
def diffusers_unet(tiny: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny / "sd15" / "unet")


def reference(unet: Any, path: Path) -> Any:
    """diffusers' projection of a file."""
    tensors = {
        name.removeprefix("image_proj."): tensor.float()
        for name, tensor in load_file(path).items()
        if name.startswith("image_proj.")
    }
    return unet._convert_ip_adapter_image_proj_to_diffusers(tensors)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["faceid", "portrait"])
def test_faceid(tiny: Path, diffusers_unet: Any, kind: str) -> None:
    path = tiny / "ip_adapters" / "sd15" / f"{kind}.safetensors"
    face = torch.nn.functional.normalize(noise(ROWS, EMBEDDING), dim=-1)
    expected = reference(diffusers_unet, path)(face)
    found = network(path)(face=face)
    assert found["tokens"].shape[1] == {"faceid": 4, "portrait": 16}[kind]
    assert_near(found["tokens"], expected)


@torch.no_grad()
@pytest.mark.parametrize("shortcut", [True, False])
def test_faceid_plus(tiny: Path, diffusers_unet: Any, shortcut: bool) -> None:
    path = tiny / "ip_adapters" / "sd15" / "faceid_plus.safetensors"
    face, penultimate = noise(ROWS, EMBEDDING, seed=1), noise(ROWS, PATCHES, ENCODER_WIDTH, seed=2)
    module = reference(diffusers_unet, path)
    module.clip_embeds, module.shortcut = penultimate[:, None], shortcut
    found = network(path)(face=face, penultimate=penultimate, shortcut=torch.full((ROWS,), float(shortcut)))
    assert_near(found["tokens"], module(face))
    module.shortcut = not shortcut
    assert (module(face) - found["tokens"]).abs().max() > 0.1


@torch.no_grad()
def test_rows_may_have_other_shortcuts(tiny: Path) -> None:
    projection = network(tiny / "ip_adapters" / "sd15" / "faceid_plus.safetensors")
    face, penultimate = noise(ROWS, EMBEDDING, seed=1), noise(ROWS, PATCHES, ENCODER_WIDTH, seed=2)
    mixed = projection(face=face, penultimate=penultimate, shortcut=torch.tensor([0.0, 1.0]))["tokens"]
    for row, shortcut in enumerate((0.0, 1.0)):
        alone = projection(face=face, penultimate=penultimate, shortcut=torch.full((ROWS,), shortcut))["tokens"]
        assert torch.equal(mixed[row], alone[row])


@torch.no_grad()
def test_instant_id_is_a_resampler_of_one_token(tiny: Path, diffusers_unet: Any) -> None:
    path = tiny / "ip_adapters" / "sd15" / "instant_id.safetensors"
    face = noise(ROWS, 1, EMBEDDING)
    assert_near(network(path)(penultimate=face)["tokens"], reference(diffusers_unet, path)(face))
