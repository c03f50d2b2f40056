"""The scales of IP-Adapters by layer, compared with diffusers' `set_ip_adapter_scale`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.cross_attention import cross_attentions
from runtime.conditioning.ip_scales import ScaleError, layer_scales

KINDS = ("sd15", "sd2", "sdxl")
SCALES: dict[str, Any] = {
    "style": {"up": {"block_1": [0.0, 1.0, 0.0]}},
    "both": {"down": {"block_1": [0.5, 1.5]}, "up": {"block_1": [0.0, 1.0, 0.0]}},
    "sides": {"down": 0.3, "mid": 0.7, "up": 0.2},
    "one": {"mid": [0.4], "up": {"block_1": [0.6]}},
    "block": {"down": {"block_1": 2}},
    "nothing": {},
}


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found: Checkpoint = request.getfixturevalue(request.param)
    return found


def unet_of(checkpoint: Checkpoint) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(checkpoint.unet.files[0].path.parent)


def test_the_layers_are_those_of_diffusers_in_its_order(checkpoint: Checkpoint) -> None:
    unet = unet_of(checkpoint)
    expected = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    layers = cross_attentions(checkpoint.unet)
    assert [layer.name for layer in layers] == expected
    assert [layer.width for layer in layers] == [unet.get_submodule(name).inner_dim for name in expected]


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_scales_by_block_equal_those_of_diffusers(checkpoint: Checkpoint, scales: dict[str, Any]) -> None:
    (expanded,) = _maybe_expand_lora_scales(unet_of(checkpoint), [json.loads(json.dumps(scales))], default_scale=0.0)
    layers = [layer.name for layer in cross_attentions(checkpoint.unet)]
    expected = [next(value for place, value in expanded.items() if name.startswith(place)) for name in layers]
    assert list(layer_scales(scales, layers)) == expected


def test_one_number_is_for_all_layers(sd15: Checkpoint) -> None:
    layers = [layer.name for layer in cross_attentions(sd15.unet)]
    assert layer_scales(0.4, layers) == (0.4,) * len(layers)


WRONG: dict[str, Any] = {
    "no part of a UNet": {"side": 1},
    "no attention in down.block_7": {"down": {"block_7": 1}},
    "down.block_1 has 5 scales": {"down": {"block_1": [1, 1, 1, 1, 1]}},
    "must be a number": {"up": {"block_1": ["1"]}},
    "mid has 2 scales": {"mid": [1, 2]},
    "mid must be a number": {"mid": {"block_0": 1}},
}


@pytest.mark.parametrize("message", WRONG)
def test_scales_that_do_not_fit_are_refused(sd15: Checkpoint, message: str) -> None:
    layers = [layer.name for layer in cross_attentions(sd15.unet)]
    with pytest.raises(ScaleError, match=message):
        layer_scales(WRONG[message], layers)


@pytest.mark.parametrize("name", ["mid_block.attentions.1.transformer_blocks.0.attn2", "attn2"])
def test_a_layer_that_no_block_has_is_refused(name: str) -> None:
    with pytest.raises(ScaleError, match=f"the UNet's {name} has no scale by block: give one scale"):
        layer_scales({"mid": 1.0}, [name])
    assert layer_scales(0.5, [name]) == (0.5,)
