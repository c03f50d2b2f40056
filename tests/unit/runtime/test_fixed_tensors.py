"""Weights at fixed addresses, as CUDA graphs need them. A network on the CPU stands for one on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.contents import Contents
from runtime.engines.engine import Field, Outputs, never_cancelled
from runtime.engines.placement import Placement
from runtime.engines.torch.fixed_tensors import FixedTensors
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import architecture_of
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_cache, make_engine, predict
from tests.unit.runtime.tiny_checkpoints import read_checkpoint
from tests.unit.runtime.unet_sets import INPUTS, unet_lora


class AddressGraphs:
    """Stands for CUDA graphs: the network's weights must be where they were at the first call."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.calls = self.cleared = 0

    def call(self, network: Callable[..., Outputs], batch: Mapping[str, Field]) -> Outputs:
        assert isinstance(network, torch.nn.Module)
        found = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
        self.addresses = self.addresses or found
        assert found == self.addresses
        self.calls += 1
        outputs: Outputs = network(**batch)
        return outputs

    def clear(self) -> None:
        self.addresses.clear()
        self.cleared += 1


def _engine(checkpoint: Checkpoint, cache: WeightsCache) -> tuple[TorchEngine, AddressGraphs]:
    graphs = AddressGraphs()
    placement = Placement(torch.device("cpu"), torch.float32)
    return TorchEngine(architecture_of("unet", checkpoint.unet.config), placement, cache, graphs), graphs


def test_one_address_serves_all_weights(sd15: Checkpoint, tiny: Path) -> None:
    """Bytes are those of an engine that points at each set's own tensors."""
    other = read_checkpoint(tiny / "sd15-oldnames")
    a = unet_lora(sd15, tiny / "loras/sd15/peft.safetensors", 1.0)
    b = unet_lora(sd15, tiny / "loras/sd15/peft.safetensors", -0.5)
    sets = {"base": WeightSet(sd15.unet), "a": a, "b": b, "other": WeightSet(other.unet)}
    expected = {name: predict(make_engine("unet", sd15.unet)[0], weights, INPUTS) for name, weights in sets.items()}
    engine, graphs = _engine(sd15, make_cache())
    order = ["base", "a", "b", "base", "other", "a", "a", "base"]
    for name in order:
        assert torch.equal(predict(engine, sets[name], INPUTS), expected[name]), name
    assert graphs.calls == len(order)
    assert graphs.cleared == 1  # when the network first pointed at the fixed addresses


def test_fixed_tensors_count_in_the_budget_and_can_be_evicted(sd15: Checkpoint) -> None:
    base = WeightSet(sd15.unet)
    size = make_engine("unet", sd15.unet)[0].bind(base, never_cancelled).contents
    nbytes = sum(tensor.nbytes for tensor in size.tensors.values())
    cache = make_cache(2 * nbytes)
    engine, graphs = _engine(sd15, cache)
    first = predict(engine, base, INPUTS)
    assert cache.nbytes == 2 * nbytes
    cache._budgeted.make_room({"other": 2 * nbytes}, never_cancelled)
    assert cache.nbytes == 0
    assert graphs.cleared == 2
    assert torch.equal(predict(engine, base, INPUTS), first)


@pytest.mark.parametrize(
    ("second", "copied"),
    [
        (("k", "base", {"x"}), set()),
        (("other", "base", {"y"}), {"x", "y"}),
        (("base", "base", set()), {"x"}),
        (("elsewhere", "second base", set()), {"x", "y", "z"}),
    ],
)
def test_only_what_differs_is_copied(second: tuple[str, str, set[str]], copied: set[str]) -> None:
    fixed = FixedTensors("fixed", {name: torch.zeros(2) for name in "xyz"}, lambda _: None)
    fixed.hold(Contents("k", "base", frozenset("x"), {name: torch.ones(2) for name in "xyz"}))
    key, base_key, changed = second
    fixed.hold(Contents(key, base_key, frozenset(changed), {name: torch.full((2,), 2.0) for name in "xyz"}))
    assert {name for name, tensor in fixed.tensors.items() if tensor[0] == 2} == copied


def test_after_a_failed_copy_everything_is_copied() -> None:
    fixed = FixedTensors("fixed", {name: torch.zeros(2) for name in "xyz"}, lambda _: None)
    fixed.hold(Contents("k", "base", frozenset("x"), {name: torch.ones(2) for name in "xyz"}))
    with pytest.raises(KeyError):
        fixed.hold(Contents("l", "base", frozenset("y"), {}))
    fixed.hold(Contents("k", "base", frozenset("x"), {name: torch.full((2,), 2.0) for name in "xyz"}))
    assert all(tensor[0] == 2 for tensor in fixed.tensors.values())
