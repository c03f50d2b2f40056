"""Weight sets through the torch engine: what was bound before has no effect."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import TorchBinding, WeightsCounts
from runtime.weights.change import Change, LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import batched, make_engine, noise, predict, rows_of
from tests.unit.runtime.merging import Changes, Replacement, merged
from tests.unit.runtime.tiny_checkpoints import base_tensors
from tests.unit.runtime.unet_sets import INPUTS, unet_lora

NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"  # [16, 16]


@pytest.fixture(scope="module")
def base(sd15: Checkpoint) -> WeightSet:
    return WeightSet(sd15.unet)


@pytest.fixture(scope="module")
def a(sd15: Checkpoint, tiny: Path) -> WeightSet:
    return unet_lora(sd15, tiny / "loras/sd15/peft.safetensors", 1.0)


@pytest.fixture(scope="module")
def b(sd15: Checkpoint, tiny: Path) -> WeightSet:
    return unet_lora(sd15, tiny / "loras/sd15/kohya.safetensors", -0.5)


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
    return unet_lora(sd15, lora_files.write(path, tensors), 0.5)


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
def test_a_set_has_the_memory_of_the_evicted_one_and_nothing_else_of_it(
    sd15: Checkpoint, a: WeightSet, b: WeightSet, c: WeightSet, dtype: torch.dtype
) -> None:
    fresh = {w.digest: predict(make_engine("unet", sd15.unet, dtype)[0], w, INPUTS) for w in (a, b, c)}
    sizes: list[int] = []
    plenty, cache = make_engine("unet", sd15.unet, dtype)
    for weights in (WeightSet(sd15.unet), a, b, c):
        plenty.bind(weights, never_cancelled)
        sizes.append(cache.nbytes - sum(sizes))
    engine, _ = make_engine("unet", sd15.unet, dtype, budget=sizes[0] + max(sizes[1:]))  # the base, and any one of them
    places: list[set[int]] = []
    for weights in (a, b, a, c, b, c):
        binding = engine.bind(weights, never_cancelled)
        assert torch.equal(_prediction(engine, binding), fresh[weights.digest])
        places.append({binding.tensors[name].data_ptr() for name in weights.changed})
        binding.release()
    assert all(one & other for one, other in pairwise(places))


def _prediction(engine: TorchEngine, binding: TorchBinding) -> torch.Tensor:
    found = batched(engine.run([(binding, row) for row in rows_of(INPUTS)]))["prediction"]
    assert isinstance(found, torch.Tensor)
    return found


def test_two_sets_can_be_bound_at_once(engine: TorchEngine, base: WeightSet, a: WeightSet) -> None:
    alone = [predict(engine, weights, INPUTS) for weights in (base, a)]
    bindings = [engine.bind(weights, never_cancelled) for weights in (base, a)]
    for _ in range(2):
        for binding, expected in zip(bindings, alone, strict=True):
            assert torch.equal(_prediction(engine, binding), expected)


def test_a_full_replacement_replaces(engine: TorchEngine, sd15: Checkpoint, tiny: Path) -> None:
    new = noise(16, 16)
    unet = UNet2DConditionModel.from_pretrained(tiny / "sd15" / "unet")
    unet.get_parameter(NAME).data = new
    with torch.no_grad():
        expected = unet(INPUTS["latent"], INPUTS["t"], INPUTS["text"]).sample
    found = predict(engine, WeightSet(sd15.unet, (Changes("full", {NAME: Replacement(new)}),)), INPUTS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_low_rank_change_is_added_to_a_replacement(sd15: Checkpoint) -> None:
    change, full = LowRank(noise(2, 16, seed=1), noise(16, 2, seed=2), 0.5), noise(16, 16, seed=3)
    sources = (Changes("full", {NAME: Replacement(full)}), Changes("low", {NAME: change}))
    found = merged(WeightSet(sd15.unet, sources), NAME, noise(16, 16))
    torch.testing.assert_close(found, full + 0.5 * change.up @ change.down)


def test_several_changes_are_summed_in_their_order(sd15: Checkpoint) -> None:
    changes = [LowRank(noise(2, 16, seed=n), noise(16, 2, seed=n + 9), 10.0**n) for n in range(4)]
    start = noise(16, 16)
    expected = start
    for change in changes:
        expected = torch.addmm(expected, change.up, change.down, alpha=change.scale)
    weights = WeightSet(sd15.unet, tuple(Changes("x", {NAME: change}) for change in changes))
    assert torch.equal(merged(weights, NAME, start), expected)


def test_a_changed_convolution_equals_two_convolutions(sd15: Checkpoint) -> None:
    """W + up @ down, applied at once, is what W and the pair, applied one after the other, give in sum."""
    weight, down, up, picture = (
        noise(6, 5, 3, 3),
        noise(2, 5, 3, 3, seed=1),
        noise(6, 2, 1, 1, seed=2),
        noise(1, 5, 9, 9),
    )
    conv = torch.nn.functional.conv2d
    found = merged(WeightSet(sd15.unet, (Changes("x", {NAME: LowRank(down, up, 1.5)}),)), NAME, weight)
    expected = conv(picture, weight) + 1.5 * conv(conv(picture, down), up)
    torch.testing.assert_close(conv(picture, found), expected, rtol=1e-5, atol=1e-5)


def test_the_digest_names_the_result(sd15: Checkpoint, sdxl: Checkpoint) -> None:
    def of(*digests: str) -> WeightSet:
        return WeightSet(sd15.unet, tuple(Changes(digest, {}) for digest in digests))

    sets = [WeightSet(sd15.unet), WeightSet(sdxl.unet), of("a*1.0"), of("a*0.5"), of("b*1.0")]
    sets += [of("a*1.0", "b*1.0"), of("b*1.0", "a*1.0")]
    assert len({weights.digest for weights in sets}) == len(sets)
    assert of("a*1.0").digest == sets[2].digest


def test_a_parameter_is_low_rank_where_every_source_is(sd15: Checkpoint) -> None:
    low, full = LowRank(noise(2, 16), noise(16, 2), 1.0), Replacement(noise(16, 16))
    one, other = Changes("a", {"x": low, "y": low}), Changes("b", {"y": full, "z": low, "w": full})
    weights = WeightSet(sd15.unet, (one, other))
    assert weights.changed == {"x": (one,), "y": (one, other), "z": (other,), "w": (other,)}
    assert weights.low_rank == {"x": (one,), "z": (other,)}
    assert weights.full == {"y": (one, other), "w": (other,)}
    assert weights.read("y") == [low, full] and weights.read("nowhere") == []


def test_the_same_weights_elsewhere_are_the_same_base(sd15: Checkpoint) -> None:
    def elsewhere(**change: str) -> Component:
        files = tuple(file.model_copy(update={"path": Path("/elsewhere")} | change) for file in sd15.unet.files)
        return Component(role="unet", config=sd15.unet.config, files=files)

    assert elsewhere().digest == sd15.unet.digest
    assert elsewhere().weights_digest == sd15.unet.weights_digest
    assert elsewhere(digest="0" * 64).digest != sd15.unet.digest


def test_equal_weights_have_one_key(engine: TorchEngine, base: WeightSet, a: WeightSet) -> None:
    first, again, other = (engine.bind(weights, never_cancelled) for weights in (a, a, base))
    assert first.key == again.key != other.key


def test_weights_in_memory_are_not_read_again(engine: TorchEngine, a: WeightSet) -> None:
    @dataclass(frozen=True, eq=False)
    class Unreadable(Changes):
        """Names its changes, and cannot be read."""

        def read(self, name: str) -> Change:
            raise InterruptedError

    (source,) = a.sources
    unreadable = WeightSet(a.base, (Unreadable(source.digest, dict.fromkeys(source.names, Replacement(noise(1)))),))
    with pytest.raises(InterruptedError):
        engine.bind(unreadable, never_cancelled)
    first = engine.bind(a, never_cancelled)
    again = engine.bind(unreadable, never_cancelled)
    assert all(again.tensors[name] is first.tensors[name] for name in a.changed)


def test_a_set_that_changes_nothing_is_its_base(sd15: Checkpoint, base: WeightSet) -> None:
    engine, cache = make_engine("unet", sd15.unet)
    for_text_encoder = WeightSet(sd15.unet, (Changes("of the text encoder alone", {}),))
    assert engine.bind(for_text_encoder, never_cancelled).key == engine.bind(base, never_cancelled).key
    assert cache.nbytes == sum(tensor.nbytes for tensor in base_tensors(sd15.unet).values())


def test_only_what_a_set_changes_is_kept_twice(sd15: Checkpoint, base: WeightSet, a: WeightSet) -> None:
    engine, cache = make_engine("unet", sd15.unet)
    engine.bind(base, never_cancelled)
    before = cache.nbytes
    engine.bind(a, never_cancelled)
    tensors = base_tensors(sd15.unet)
    assert cache.nbytes - before == sum(tensors[name].nbytes for name in a.changed)


def test_the_base_stays_while_a_merged_set_lives(sd15: Checkpoint, a: WeightSet) -> None:
    engine, cache = make_engine("unet", sd15.unet, budget=0)
    binding = engine.bind(a, never_cancelled)
    assert cache.nbytes > sum(tensor.nbytes for tensor in base_tensors(sd15.unet).values())
    binding.release()
    assert cache.nbytes == 0


def test_loads_merges_hits_and_evictions_are_counted(
    sd15: Checkpoint, base: WeightSet, a: WeightSet, b: WeightSet
) -> None:
    engine, cache = make_engine("unet", sd15.unet)
    for weights in (base, a, a, b, a):
        engine.bind(weights, never_cancelled).release()
    assert cache.counts == WeightsCounts(loads=1, merges=2, merged_hits=2, evictions=0)
    engine, cache = make_engine("unet", sd15.unet, budget=0)
    for weights in (base, a):
        engine.bind(weights, never_cancelled).release()
    assert cache.counts == WeightsCounts(loads=2, merges=1, merged_hits=0, evictions=3)


def test_a_change_of_what_is_not_there_is_an_error(sd15: Checkpoint) -> None:
    engine, cache = make_engine("unet", sd15.unet, budget=0)
    with pytest.raises(WeightsError, match=r"unet has no nowhere\.weight"):
        engine.bind(
            WeightSet(sd15.unet, (Changes("x", {"nowhere.weight": Replacement(noise(2, 2))}),)), never_cancelled
        )
    assert cache.nbytes == 0


def test_bound_weights_do_not_change_with_their_file(sd15: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    path.write_bytes(sd15.unet.files[0].path.read_bytes())
    copy = sd15.unet.model_copy(update={"files": (sd15.unet.files[0].model_copy(update={"path": path}),)})
    engine, _ = make_engine("unet", copy)
    binding = engine.bind(WeightSet(copy), never_cancelled)
    before = _prediction(engine, binding)
    with path.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\x7f" * 4096)
    assert torch.equal(_prediction(engine, binding), before)


@pytest.mark.parametrize("changes", [False, True])
def test_bind_calls_check_cancelled_before_every_tensor(
    sd15: Checkpoint, base: WeightSet, a: WeightSet, changes: bool
) -> None:
    engine, cache = make_engine("unet", sd15.unet, budget=0)
    held = engine.bind(base, never_cancelled) if changes else None
    calls = 0

    def check_cancelled() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        engine.bind(a if changes else base, check_cancelled)
    if held:
        held.release()
    assert cache.nbytes == 0


def test_evicted_weights_are_freed_though_the_network_ran_them_last(sd15: Checkpoint, base: WeightSet) -> None:
    engine, _ = make_engine("unet", sd15.unet, budget=0)
    binding = engine.bind(base, never_cancelled)
    expected = _prediction(engine, binding)
    tensors = [weakref.ref(tensor) for tensor in binding.tensors.values()]
    binding.release()
    del binding
    gc.collect()
    assert not any(tensor() is not None for tensor in tensors)
    assert torch.equal(_prediction(engine, engine.bind(base, never_cancelled)), expected)
