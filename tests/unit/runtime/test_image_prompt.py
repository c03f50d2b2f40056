"""A UNet with every input, given a row with every field, equals diffusers' UNet with IP-Adapters loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

from runtime.checkpoints.checkpoint import Component
from runtime.conditioning.ip_masks import PictureMasks
from runtime.conditioning.row import Row
from runtime.engines.stacking import stack
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.weights.weight_set import WeightSet
from runtime.window import Window
from tests.unit.runtime.engines import assert_near, make_engine, noise, predict
from tests.unit.runtime.tiny_checkpoints import read_component

SIDE = 16
TOKENS = 4
SCALES = (0.6, 1.3)  # of the two adapters
TEXT = 80


@pytest.fixture(scope="module")
def component(tiny: Path) -> Component:
    return read_component("unet", tiny / "everything" / "unet")


@pytest.fixture(scope="module")
def engine(component: Component) -> TorchEngine:
    return make_engine("unet", component)[0]


@pytest.fixture(scope="module")
def oracle(tiny: Path) -> Any:
    """diffusers' UNet with an IPAdapterAttnProcessor2_0 for two adapters in every cross-attention layer."""
    unet = UNet2DConditionModel.from_pretrained(tiny / "everything" / "unet")
    processors = {}
    for number, (name, module) in enumerate(_attentions(unet)):
        if not name.endswith("attn2"):
            processors[f"{name}.processor"] = AttnProcessor2_0()
            continue
        processor = IPAdapterAttnProcessor2_0(module.inner_dim, TEXT, num_tokens=(TOKENS, TOKENS), scale=list(SCALES))
        for offset, layer in enumerate((*processor.to_k_ip, *processor.to_v_ip)):
            layer.weight.data = noise(*layer.weight.shape, seed=100 * number + offset) / TEXT**0.5
        processors[f"{name}.processor"] = processor
    unet.set_attn_processor(processors)
    return unet


def _attentions(unet: Any) -> list[tuple[str, Any]]:
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [(name, unet.get_submodule(name)) for name in names]


def _cross_attentions(unet: Any) -> list[Any]:
    """The cross-attention layers in the order of the modules."""
    return [module for name, module in unet.named_modules() if name.endswith("attn2")]


IMAGES = noise(2, TOKENS, TEXT, seed=7)  # one for each adapter
MASK = torch.zeros(2, SIDE, SIDE)
MASK[0, :, : SIDE // 2] = 1.0
MASK[1, 4:, :] = 0.5
WHOLE = Window(0, 0, SIDE, SIDE)
NO_MASKS: dict[str, Any] = {"ip_masks": None, "ip_mask_index": None}


def masked(component: Component, pixels: torch.Tensor, index: list[int]) -> dict[str, Any]:
    """The fields of a row whose adapters have these masks."""
    masks = PictureMasks(pixels, torch.tensor(index)).resize(WHOLE, 1, component.config)
    return {"ip_masks": masks.masks, "ip_mask_index": masks.index}


@pytest.fixture(scope="module")
def row(component: Component, oracle: Any) -> Row:
    """A row with every field; the residuals are as many, and as large, as the UNet's skip connections."""
    keys, values = [], []
    with torch.no_grad():
        for attention in _cross_attentions(oracle):
            found = attention.processor
            keys.append(torch.stack([to_k(image) for to_k, image in zip(found.to_k_ip, IMAGES, strict=True)]))
            values.append(
                torch.stack([s * to_v(image) for s, to_v, image in zip(SCALES, found.to_v_ip, IMAGES, strict=True)])
            )
    return Row(
        latent=noise(4, SIDE, SIDE, seed=1),
        t=torch.tensor(381.0),
        text=noise(77, TEXT, seed=2),
        pooled=noise(40, seed=3),
        time_ids=torch.tensor([64.0, 128, 0, 8, 64, 128]),
        timestep_cond=noise(12, seed=4),
        concat=noise(4, SIDE, SIDE, seed=5),
        residuals=tuple(0.3 * noise(*shape, seed=50 + n) for n, shape in enumerate(_skip_shapes(oracle))),
        ip_k=torch.cat(keys, dim=-1),
        ip_v=torch.cat(values, dim=-1),
        ip_bias=torch.zeros(2, TOKENS),
        **masked(component, MASK, [0, 1]),
    )


def _skip_shapes(unet: Any) -> list[tuple[int, ...]]:
    """Each skip connection's [C, h, w], the middle block's last."""
    widths, side = unet.config.block_out_channels, SIDE
    shapes = [(widths[0], side, side)]
    for level, width in enumerate(widths):
        shapes += [(width, side, side)] * unet.config.layers_per_block
        if level < len(widths) - 1:
            side //= 2
            shapes.append((width, side, side))
    return [*shapes, (widths[-1], side, side)]


def _predicted(engine: TorchEngine, component: Component, row: Row) -> torch.Tensor:
    return predict(engine, WeightSet(component), stack([row.inputs()]))[0]


def _expected(unet: Any, row: Row, masks: list[torch.Tensor] | None) -> torch.Tensor:
    assert row.residuals and row.concat is not None and row.timestep_cond is not None
    assert row.pooled is not None and row.time_ids is not None
    with torch.no_grad():
        sample: torch.Tensor = unet(
            torch.cat([row.latent, row.concat])[None],
            row.t,
            row.text[None],
            timestep_cond=row.timestep_cond[None],
            added_cond_kwargs={
                "text_embeds": row.pooled[None],
                "time_ids": row.time_ids[None],
                "image_embeds": [image[None, None] for image in IMAGES],
            },
            cross_attention_kwargs={"ip_adapter_masks": masks} if masks else None,
            down_block_additional_residuals=tuple(item[None] for item in row.residuals[:-1]),
            mid_block_additional_residual=row.residuals[-1][None],
        ).sample
    return sample[0]


class _Images(torch.nn.Module):
    """Image embeddings as they are: what diffusers' projection would have made."""

    def forward(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
        return images


@pytest.fixture(autouse=True)
def projected(oracle: Any) -> None:
    oracle.encoder_hid_proj = _Images()
    oracle.register_to_config(encoder_hid_dim_type="ip_image_proj")


@pytest.mark.parametrize("has_masks", [True, False])
def test_a_row_with_every_field(
    engine: TorchEngine, component: Component, oracle: Any, row: Row, has_masks: bool
) -> None:
    masks = [mask[None, None] for mask in MASK] if has_masks else None
    found = _predicted(engine, component, row if has_masks else replace(row, **NO_MASKS))
    assert_near(found, _expected(oracle, row, masks))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: replace(row, latent=-row.latent),
        lambda row: replace(row, t=row.t + 1),
        lambda row: replace(row, text=-row.text),
        lambda row: replace(row, pooled=-row.pooled),
        lambda row: replace(row, time_ids=row.time_ids + 1),
        lambda row: replace(row, timestep_cond=-row.timestep_cond),
        lambda row: replace(row, timestep_cond=None),
        lambda row: replace(row, concat=-row.concat),
        lambda row: replace(row, residuals=None),
        lambda row: replace(row, residuals=(*row.residuals[:-1], 0 * row.residuals[-1])),
        lambda row: replace(row, residuals=(0 * row.residuals[0], *row.residuals[1:])),
        lambda row: replace(row, ip_k=None, ip_v=None, ip_bias=None, **NO_MASKS),
        lambda row: replace(row, ip_k=-row.ip_k),
        lambda row: replace(row, ip_v=row.ip_v.flip(0)),
        lambda row: replace(row, ip_v=_without_last_layer(row.ip_v)),
        lambda row: replace(row, ip_bias=_without_token(row.ip_bias, 0, 1)),
        lambda row: replace(row, ip_masks=tuple(1 - masks for masks in row.ip_masks)),
        lambda row: replace(row, ip_mask_index=1 - row.ip_mask_index),
        lambda row: replace(row, ip_mask_index=row.ip_mask_index + 1),
    ],
)
def test_every_field_counts(engine: TorchEngine, component: Component, row: Row, change: Any) -> None:
    changed = _predicted(engine, component, change(row))
    assert (changed - _predicted(engine, component, row)).abs().max() > 1e-4


def _without_last_layer(values: torch.Tensor) -> torch.Tensor:
    """Packed values [adapters, tokens, sum of inner widths] without those of the last layer."""
    changed = values.clone()
    changed[..., -16:] = 0
    return changed


def _without_token(bias: torch.Tensor, adapter: int, token: int) -> torch.Tensor:
    changed = bias.clone()
    changed[adapter, token] = float("-inf")
    return changed


def test_zero_values_have_no_effect(engine: TorchEngine, component: Component, row: Row) -> None:
    assert row.ip_v is not None
    without = replace(row, ip_k=None, ip_v=None, ip_bias=None, **NO_MASKS)
    zero = replace(row, ip_v=0 * row.ip_v)
    found, expected = (_predicted(engine, component, one) for one in (zero, without))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_absent_adapter_has_no_effect(engine: TorchEngine, component: Component, row: Row) -> None:
    """So that a row with fewer adapters can share a call: zero keys, values and bias fill its place."""
    assert row.ip_k is not None and row.ip_v is not None and row.ip_bias is not None
    parts: dict[str, Any] = {name: getattr(row, name) for name in ("ip_k", "ip_v", "ip_bias")}
    one = replace(row, **{name: part[:1] for name, part in parts.items()}, **masked(component, MASK, [0]))
    padded: dict[str, Any] = {name: torch.cat([part[:1], 0 * part[:1]]) for name, part in parts.items()}
    expected = _predicted(engine, component, one)
    for index in ([0, 1], [0, -1]):
        found = _predicted(engine, component, replace(row, **padded, **masked(component, MASK, index)))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_no_adapters_have_no_effect(engine: TorchEngine, component: Component, row: Row) -> None:
    """As in an exported graph, where the adapters are an axis that may be 0."""
    parts = {name: getattr(row, name)[:0] for name in ("ip_k", "ip_v", "ip_bias")}
    without = replace(row, ip_k=None, ip_v=None, ip_bias=None, **NO_MASKS)
    found, expected = (_predicted(engine, component, one) for one in (replace(row, **parts, **NO_MASKS), without))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_token_of_bias_minus_infinity_has_no_effect(engine: TorchEngine, component: Component, row: Row) -> None:
    """So that adapters of different numbers of tokens can share a row, whatever fills the added tokens."""
    assert row.ip_k is not None and row.ip_v is not None and row.ip_bias is not None
    adapters, _, width = row.ip_k.shape
    added = 3
    padded = replace(
        row,
        ip_k=torch.cat([row.ip_k, noise(adapters, added, width, seed=8)], dim=1),
        ip_v=torch.cat([row.ip_v, noise(adapters, added, width, seed=9)], dim=1),
        ip_bias=torch.cat([row.ip_bias, torch.full((adapters, added), float("-inf"))], dim=1),
    )
    assert_near(_predicted(engine, component, padded), _predicted(engine, component, row))


def test_an_adapter_of_fewer_tokens_equals_itself_padded(engine: TorchEngine, component: Component, row: Row) -> None:
    """The first adapter has two tokens, and the second one has four."""
    assert row.ip_k is not None and row.ip_v is not None and row.ip_bias is not None
    bias = _without_token(_without_token(row.ip_bias, 0, 2), 0, 3)
    both = _predicted(engine, component, replace(row, ip_bias=bias))
    noisy_k = row.ip_k.clone()
    noisy_k[0, 2:] = noise(2, row.ip_k.shape[-1], seed=10)
    assert_near(_predicted(engine, component, replace(row, ip_bias=bias, ip_k=noisy_k)), both)
    mask = masked(component, MASK, [0])
    first: dict[str, Any] = {name: getattr(row, name)[:1] for name in ("ip_k", "ip_v", "ip_bias")}
    short = {name: part[:, :2] for name, part in first.items()}
    padded = replace(row, **first | {"ip_bias": bias[:1]}, **mask)
    assert_near(_predicted(engine, component, padded), _predicted(engine, component, replace(row, **short, **mask)))


def test_rows_with_every_field_keep_their_own(engine: TorchEngine, component: Component, row: Row) -> None:
    assert row.ip_v is not None and row.residuals
    other = replace(
        row,
        latent=-row.latent,
        ip_v=-row.ip_v,
        **masked(component, 1 - MASK, [0, 1]),
        residuals=tuple(-r for r in row.residuals),
    )
    both = predict(engine, WeightSet(component), stack([row.inputs(), other.inputs()]))
    for found, alone in zip(both, (row, other), strict=True):
        assert_near(found, _predicted(engine, component, alone))
