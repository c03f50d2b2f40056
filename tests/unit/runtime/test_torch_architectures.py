"""Architectures of the torch engine that share a checkpoint: one base, and merged sets of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_cache, make_engine, noise, predict
from tests.unit.runtime.merging import Changes, Replacement
from tests.unit.runtime.tiny_checkpoints import base_tensors
from tests.unit.runtime.unet_sets import INPUTS, unet_lora

CONV_IN = "conv_in.weight"  # [16, 4, 3, 3] in the files


def _with_8_channels(component: Component) -> Component:
    """Another architecture over the component's files, as IC-Light's is over Stable Diffusion's."""
    return component.model_copy(update={"config": component.config | {"in_channels": 8}})


@pytest.mark.parametrize(("dtype", "upcasts"), [(torch.float32, False), (torch.bfloat16, True)])
def test_two_architectures_over_one_checkpoint_share_its_base(
    sd15: Checkpoint, dtype: torch.dtype, upcasts: bool
) -> None:
    cache, base, wide = make_cache(), WeightSet(sd15.unet), _with_8_channels(sd15.unet)
    engine4, _ = make_engine("unet", sd15.unet, dtype, upcasts=upcasts, cache=cache)
    engine8, _ = make_engine("unet", wide, dtype, upcasts=upcasts, cache=cache)
    out, _, *kernel = sd15.unet.shapes[CONV_IN]

    def offset(value: torch.Tensor) -> WeightSet:
        padded = torch.cat([base_tensors(sd15.unet)[CONV_IN], torch.zeros(out, 4, *kernel)], dim=1)
        return WeightSet(wide, (Changes(f"{value.sum()}", {CONV_IN: Replacement(padded + value)}),))

    bound4 = engine4.bind(base, never_cancelled)
    before = cache.nbytes
    zero, other = offset(torch.zeros(out, 8, *kernel)), offset(noise(out, 8, *kernel))
    bound8 = engine8.bind(zero, never_cancelled)
    assert cache.nbytes - before == out * 8 * kernel[0] * kernel[1] * dtype.itemsize
    assert all(
        bound8.tensors[name].data_ptr() == tensor.data_ptr()
        for name, tensor in bound4.tensors.items()
        if name != CONV_IN
    )
    expected = predict(engine4, base, INPUTS)
    without_picture = INPUTS | {"concat": torch.zeros(2, 4, 8, 8)}
    found = predict(engine8, zero, without_picture)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(predict(engine8, other, without_picture), expected, atol=1e-3)
    assert torch.equal(predict(engine8, zero, without_picture), found)
    assert torch.equal(predict(engine4, base, INPUTS), expected)


def test_more_input_channels_need_a_source_of_full_changes(sd15: Checkpoint) -> None:
    wide = _with_8_channels(sd15.unet)
    engine, cache = make_engine("unet", wide)
    low_rank = Changes("low", {CONV_IN: LowRank(noise(2, 8, 3, 3), noise(16, 2, 1, 1), 1.0)})
    for sources in ((), (low_rank,)):
        with pytest.raises(WeightsError, match=r"^unet: conv_in\.weight is \[16, 4, 3, 3\], not \[16, 8, 3, 3\]$"):
            engine.bind(WeightSet(wide, sources), never_cancelled)
    assert cache.nbytes == 0


def test_a_merged_set_of_one_architecture_is_not_that_of_another(sd15: Checkpoint, tiny: Path) -> None:
    """The same LoRA over the same files, with other numbers of input channels."""
    a = unet_lora(sd15, tiny / "loras/sd15/peft.safetensors", 1.0)
    cache, wide = make_cache(), _with_8_channels(sd15.unet)
    engine4, _ = make_engine("unet", sd15.unet, cache=cache)
    engine8, _ = make_engine("unet", wide, cache=cache)
    padded = torch.cat([base_tensors(sd15.unet)[CONV_IN], torch.zeros(16, 4, 3, 3)], dim=1)
    both = WeightSet(wide, (*a.sources, Changes("wide", {CONV_IN: Replacement(padded)})))
    expected = predict(make_engine("unet", sd15.unet)[0], a, INPUTS)
    assert torch.equal(predict(engine4, a, INPUTS), expected)
    found = predict(engine8, both, INPUTS | {"concat": torch.zeros(2, 4, 8, 8)})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(predict(engine4, a, INPUTS), expected)
