"""Weight sets through the torch engine: whatever was bound before leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.engine import WeightsError
from runtime.engines.torch.torch_engine import TorchBinding, TorchEngine
from runtime.lora.load import LoraChanges
from runtime.lora.lora_file import read_lora
from runtime.weights.change import Change, LowRank
from runtime.weights.weight_set import WeightSet, base_tensors
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import make_engine, noise, predict, unet_inputs
from tests.unit.runtime.merging import merged

INPUTS = unet_inputs("sd")
NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"  # [16, 16]


def _lora(checkpoint: Checkpoint, path: Path, scale: float) -> WeightSet:
    layers = [layer for layer in read_lora(path, checkpoint.adaptable) if layer.target.component == "unet"]
    return WeightSet(checkpoint.unet, f"{path.name}*{scale}", added=[LoraChanges(path, layers, scale)])


@pytest.fixture(scope="module")
def base(sd15: Checkpoint) -> WeightSet:
    return WeightSet(sd15.unet)


@pytest.fixture(scope="module")
def a(sd15: Checkpoint, tiny: Path) -> WeightSet:
    return _lora(sd15, tiny / "loras/sd15/peft.safetensors", 1.0)


@pytest.fixture(scope="module")
def b(sd15: Checkpoint, tiny: Path) -> WeightSet:
    return _lora(sd15, tiny / "loras/sd15/kohya.safetensors", -0.5)


@pytest.fixture(scope="module")
def c(sd15: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> WeightSet:
    """Changes that are of no low rank, one of them a function of the base."""
    layer, path = NAME.removesuffix(".weight"), tmp_path_factory.mktemp("c") / "c.safetensors"
    tensors = lora_files.pair(f"unet.{layer}", 16, 16) | {
        f"unet.{layer}.dora_scale": noise(16, 1).abs(),
        f"unet.{layer.replace('to_q', 'to_k')}.lokr_w1": noise(2, 4),
        f"unet.{layer.replace('to_q', 'to_k')}.lokr_w2": noise(8, 4, seed=1),
        "unet.conv_norm_out.w_norm": noise(16),
        "unet.conv_out.diff_b": noise(4),
    }
    return _lora(sd15, lora_files.write(path, tensors), 0.5)


@pytest.fixture
def engine(sd15: Checkpoint) -> TorchEngine:
    return make_engine("unet", sd15.unet)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_nothing_of_one_set_is_left_in_another(
    sd15: Checkpoint, base: WeightSet, a: WeightSet, b: WeightSet, c: WeightSet, dtype: torch.dtype, budget: int
) -> None:
    sets = (base, a, b, c)
    fresh = [predict(make_engine("unet", sd15.unet, dtype)[0], weights, INPUTS) for weights in sets]
    assert not any(torch.equal(one, other) for one, other in combinations(fresh, 2))
    used, _ = make_engine("unet", sd15.unet, dtype, budget)
    for index in (0, 1, 2, 0, 3, 2, 1, 1, 3, 0):
        assert torch.equal(predict(used, sets[index], INPUTS), fresh[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_set_has_the_memory_of_the_one_dropped_for_it_and_nothing_else_of_it(
    sd15: Checkpoint, a: WeightSet, b: WeightSet, c: WeightSet, dtype: torch.dtype
) -> None:
    fresh = {w.digest: predict(make_engine("unet", sd15.unet, dtype)[0], w, INPUTS) for w in (a, b, c)}
    sizes: list[int] = []
    plenty, residency = make_engine("unet", sd15.unet, dtype)
    for weights in (WeightSet(sd15.unet), a, b, c):
        plenty.bind(weights)
        sizes.append(residency.nbytes - sum(sizes))
    engine, _ = make_engine("unet", sd15.unet, dtype, budget=sizes[0] + max(sizes[1:]))  # the base, and any one of them
    places: list[set[int]] = []
    for weights in (a, b, a, c, b, c):
        binding = engine.bind(weights)
        assert torch.equal(_prediction(engine, binding), fresh[weights.digest])
        places.append({binding.weights.tensors[name].data_ptr() for name in binding.weights.own})
        binding.release()
    assert all(one & other for one, other in pairwise(places))


def _prediction(engine: TorchEngine, binding: TorchBinding) -> torch.Tensor:
    found = engine.run(binding, INPUTS)["prediction"]
    assert isinstance(found, torch.Tensor)
    return found


def test_two_sets_can_be_bound_at_once(engine: TorchEngine, base: WeightSet, a: WeightSet) -> None:
    alone = [predict(engine, weights, INPUTS) for weights in (base, a)]
    bindings = [engine.bind(weights) for weights in (base, a)]
    for _ in range(2):
        for binding, expected in zip(bindings, alone, strict=True):
            found = engine.run(binding, INPUTS)["prediction"]
            assert isinstance(found, torch.Tensor)
            assert torch.equal(found, expected)


def test_a_full_replacement_replaces(engine: TorchEngine, sd15: Checkpoint, tiny: Path) -> None:
    new = noise(16, 16)
    unet = UNet2DConditionModel.from_pretrained(tiny / "sd15" / "unet")
    unet.get_parameter(NAME).data = new
    with torch.no_grad():
        expected = unet(INPUTS["latent"], INPUTS["t"], INPUTS["text"]).sample
    found = predict(engine, WeightSet(sd15.unet, "full", full={NAME: new}), INPUTS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_change_is_added_to_a_replacement(sd15: Checkpoint) -> None:
    change, full = LowRank(noise(2, 16, seed=1), noise(16, 2, seed=2), 0.5), noise(16, 16, seed=3)
    found = merged(WeightSet(sd15.unet, "x", {NAME: full}, [{NAME: change}]), NAME, noise(16, 16))
    torch.testing.assert_close(found, full + 0.5 * change.up @ change.down)


def test_several_changes_are_summed_in_their_order(sd15: Checkpoint) -> None:
    changes = [LowRank(noise(2, 16, seed=n), noise(16, 2, seed=n + 9), 10.0**n) for n in range(4)]
    start = noise(16, 16)
    expected = start
    for change in changes:
        expected = torch.addmm(expected, change.up, change.down, alpha=change.scale)
    weights = WeightSet(sd15.unet, "x", added=[{NAME: change} for change in changes])
    assert torch.equal(merged(weights, NAME, start), expected)


def test_a_convolution_changes_as_two_convolutions_do(sd15: Checkpoint) -> None:
    """W + up @ down, applied at once, is what W and the pair, applied one after the other, give in sum."""
    weight, down, up, picture = (
        noise(6, 5, 3, 3),
        noise(2, 5, 3, 3, seed=1),
        noise(6, 2, 1, 1, seed=2),
        noise(1, 5, 9, 9),
    )
    conv = torch.nn.functional.conv2d
    found = merged(WeightSet(sd15.unet, added=[{NAME: LowRank(down, up, 1.5)}]), NAME, weight)
    expected = conv(picture, weight) + 1.5 * conv(conv(picture, down), up)
    torch.testing.assert_close(conv(picture, found), expected, rtol=1e-5, atol=1e-5)


def test_the_digest_names_the_result(sd15: Checkpoint, sdxl: Checkpoint) -> None:
    sets = [WeightSet(sd15.unet), WeightSet(sdxl.unet), *(WeightSet(sd15.unet, c) for c in ("a*1.0", "a*0.5", "b*1.0"))]
    sets += [WeightSet(sd15.unet, "a*1.0+b*1.0"), WeightSet(sd15.unet, "b*1.0+a*1.0")]
    assert len({weights.digest for weights in sets}) == len(sets)
    assert WeightSet(sd15.unet, "a*1.0").digest == sets[2].digest


def test_the_same_weights_elsewhere_are_the_same_base(sd15: Checkpoint) -> None:
    def elsewhere(**change: str) -> Component:
        files = tuple(file.model_copy(update={"path": Path("/elsewhere")} | change) for file in sd15.unet.files)
        return Component(name="unet", config=sd15.unet.config, files=files)

    assert elsewhere().digest == sd15.unet.digest
    assert elsewhere(digest="0" * 64).digest != sd15.unet.digest


def test_equal_weights_have_one_key(engine: TorchEngine, base: WeightSet, a: WeightSet) -> None:
    assert engine.bind(a).key == engine.bind(a).key != engine.bind(base).key


def test_what_is_there_already_is_not_read_again(engine: TorchEngine, a: WeightSet) -> None:
    class Unreadable(Mapping[str, Change]):
        """Says what it changes, and cannot be read."""

        def __iter__(self) -> Iterator[str]:
            return iter(a.changed)

        def __len__(self) -> int:
            return len(a.changed)

        def __getitem__(self, name: str) -> Change:
            raise InterruptedError

    unreadable = replace(a, added=[Unreadable()])
    with pytest.raises(InterruptedError):
        engine.bind(unreadable)
    first = engine.bind(a)
    again = engine.bind(unreadable)
    assert again.weights is first.weights


def test_a_set_that_changes_nothing_is_its_base(sd15: Checkpoint, base: WeightSet) -> None:
    engine, residency = make_engine("unet", sd15.unet)
    assert engine.bind(WeightSet(sd15.unet, "lora for the text encoder alone")).key == engine.bind(base).key
    assert residency.nbytes == sum(tensor.nbytes for _, tensor in base_tensors(sd15.unet))


def test_only_what_a_set_changes_is_kept_twice(sd15: Checkpoint, base: WeightSet, a: WeightSet) -> None:
    engine, residency = make_engine("unet", sd15.unet)
    engine.bind(base)
    before = residency.nbytes
    engine.bind(a)
    tensors = dict(base_tensors(sd15.unet))
    assert residency.nbytes - before == sum(tensors[name].nbytes for name in a.changed)


def test_the_base_stays_while_a_merged_set_lives(sd15: Checkpoint, a: WeightSet) -> None:
    engine, residency = make_engine("unet", sd15.unet, budget=0)
    binding = engine.bind(a)
    held = residency.nbytes
    assert held > sum(tensor.nbytes for _, tensor in base_tensors(sd15.unet))
    binding.release()
    assert residency.nbytes == 0


def test_a_change_of_what_is_not_there_is_an_error(sd15: Checkpoint) -> None:
    engine, residency = make_engine("unet", sd15.unet, budget=0)
    with pytest.raises(WeightsError, match=r"unet has no nowhere\.weight"):
        engine.bind(WeightSet(sd15.unet, "x", full={"nowhere.weight": noise(2, 2)}))
    assert residency.nbytes == 0, "the base must be let go of"


def test_bound_weights_do_not_change_with_their_file(sd15: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    path.write_bytes(sd15.unet.files[0].path.read_bytes())
    copy = sd15.unet.model_copy(update={"files": (sd15.unet.files[0].model_copy(update={"path": path}),)})
    engine, _ = make_engine("unet", copy)
    binding = engine.bind(WeightSet(copy))
    before = engine.run(binding, INPUTS)["prediction"]
    with path.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\x7f" * 4096)
    after = engine.run(binding, INPUTS)["prediction"]
    assert isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)
    assert torch.equal(before, after)


@pytest.mark.parametrize("changes", [False, True])
def test_one_that_loads_asks_before_every_tensor_whether_to_stop(
    sd15: Checkpoint, base: WeightSet, a: WeightSet, changes: bool
) -> None:
    engine, residency = make_engine("unet", sd15.unet, budget=0)
    held = engine.bind(base) if changes else None
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        engine.bind(a if changes else base, stop)
    if held:
        held.release()
    assert residency.nbytes == 0


def test_what_was_dropped_is_freed_though_the_network_ran_it_last(sd15: Checkpoint, base: WeightSet) -> None:
    engine, _ = make_engine("unet", sd15.unet, budget=0)
    binding = engine.bind(base)
    expected = engine.run(binding, INPUTS)["prediction"]
    tensors = [weakref.ref(tensor) for tensor in binding.weights.tensors.values()]
    binding.release()
    del binding
    gc.collect()
    assert not any(tensor() is not None for tensor in tensors)
    again = engine.run(engine.bind(base), INPUTS)["prediction"]
    assert isinstance(again, torch.Tensor) and isinstance(expected, torch.Tensor)
    assert torch.equal(again, expected)
