"""The TensorRT engine over the emulator computes what the torch engine computes, whatever weights it held before."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx
import torch

from runtime.artifacts.plan import RUNTIME_CACHE_FILE
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.plan_weights import RefitError
from runtime.engines.tensorrt.rtx_kernels import KernelCache
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import TOLERANCE, assert_near, run
from tests.unit.export.tensorrt.calls import biases, linear_lora, text_batch
from tests.unit.export.tensorrt.emulator import Emulator
from tests.unit.runtime.engines import batched, make_engine, noise, rows_of, unet_inputs
from tests.unit.runtime.tiny_checkpoints import read_checkpoint
from tests.unit.runtime.unet_sets import unet_lora

verify = pytest.mark.verify


def test_weights_change_and_change_back(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    """base -> A -> B -> base: values of each set, no refit of other weights, and the base's bytes at the end."""
    component = sd15.text_encoders[0]
    engine, torch_engine = make("sd15 text_encoder", component), make_engine("text_encoder", component)[0]
    a, b = biases(component, 1, "q_proj"), biases(component, 2, "fc1")
    found = [run(engine, weights, text_batch()) for weights in (WeightSet(component), a, b, WeightSet(component))]
    for outputs, weights in zip(found, (WeightSet(component), a, b), strict=False):
        assert_near(outputs, run(torch_engine, weights, text_batch()))
    assert torch.equal(found[3]["pooled"], found[0]["pooled"])
    assert not torch.equal(found[1]["pooled"], found[0]["pooled"])
    all_names, *others = emulator.refits
    assert all_names == set(emulator.engines[0].weights)
    changed_a, changed_b = set(a.changed), set(b.changed)
    assert others == [changed_a, changed_a | changed_b, changed_b]


def test_calls_with_equal_weights_refit_nothing(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine = make("sd15 text_encoder", component)
    for _ in range(3):
        run(engine, WeightSet(component), text_batch())
    assert len(emulator.refits) == 1 and emulator.engines[0].calls == 3


def test_a_failed_refit_loads_the_plan_again(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine = make("sd15 text_encoder", component)
    run(engine, WeightSet(component), text_batch())
    emulator.failures = 1
    weights = biases(component, 1, "q_proj")
    expected = run(make_engine("text_encoder", component)[0], weights, text_batch())
    assert_near(run(engine, weights, text_batch()), expected)
    assert len(emulator.engines) == 2 and emulator.refits[-1] == set(emulator.engines[1].weights)
    emulator.failures = 2
    with pytest.raises(RefitError, match="failed"):
        run(engine, WeightSet(component), text_batch())
    assert_near(run(engine, weights, text_batch()), expected)


def test_weights_in_another_layout_are_never_taken(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    """TensorRT gets only an address. It would take them for other weights of the same shape."""
    engine, weights = make("sd15 text_encoder", sd15.text_encoders[0]), WeightSet(sd15.text_encoders[0])
    binding = engine.bind(weights, never_cancelled)
    name = next(name for name, tensor in binding.contents.tensors.items() if name.endswith("q_proj.weight"))
    transposed = binding.contents.tensors[name].t().contiguous().t()
    contents = replace(binding.contents, tensors={**binding.contents.tensors, name: transposed})
    with pytest.raises(AssertionError, match=name):
        engine.run([(replace(binding, contents=contents), row) for row in rows_of(text_batch())])
    assert not emulator.refits


def test_linear_loras_refit_nothing(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine, torch_engine = make("sd15 text_encoder", component), make_engine("text_encoder", component)[0]
    for seed, rank in ((1000, 4), (2000, 20)):
        weights = linear_lora(component, seed, rank=rank)
        assert_near(run(engine, weights, text_batch()), run(torch_engine, weights, text_batch()))
    assert len(emulator.refits) == 1


def test_rows_with_different_loras_share_a_call(make: Any, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine, torch_engine = make("sd15 text_encoder", component), make_engine("text_encoder", component)[0]
    sets = [linear_lora(component, seed) for seed in (1000, 2000)]
    rows = rows_of(text_batch())
    bindings = [engine.bind(weights, never_cancelled) for weights in sets]
    assert len({engine.batch_key(binding, rows[0]) for binding in bindings}) == 1
    together = batched(engine.run(list(zip(bindings, rows, strict=True))))["pooled"]
    for index, weights in enumerate(sets):
        expected = run(torch_engine, weights, text_batch())["pooled"][index]
        assert (together[index] - expected).abs().max() < TOLERANCE * expected.std()


def test_a_lora_fits_wherever_the_base_does(make: Any, sd15: Checkpoint) -> None:
    """The first network of a request may exceed the budget, and its low-rank inputs belong to it."""
    component = sd15.text_encoders[0]
    engine, weights = make("sd15 text_encoder", component), linear_lora(component, 1000)
    engine._low_ranks._budget._budget = 10
    with engine._low_ranks._budget.one_request():
        found = run(engine, weights, text_batch())
    assert_near(found, run(make_engine("text_encoder", component)[0], weights, text_batch()))


def test_a_tokenizer_of_fewer_tokens(make: Any, sd15: Checkpoint) -> None:
    component, short = sd15.text_encoders[0], {"ids": text_batch()["ids"][:, :40]}
    expected = run(make_engine("text_encoder", component)[0], WeightSet(component), short)
    assert_near(run(make("sd15 text_encoder", component), WeightSet(component), short), expected)


def test_a_size_that_the_plan_does_not_take_is_named(make: Any, sd15: Checkpoint) -> None:
    engine = make("sd15 text_encoder", sd15.text_encoders[0])
    ids = text_batch()["ids"][:1].expand(5, -1)
    with pytest.raises(PlanError, match=r"embeddings is \[5, 77, .*the plan takes \[1, 77, .* to \[4, 77"):
        run(engine, WeightSet(sd15.text_encoders[0]), {"ids": ids})


def test_weights_of_another_architecture_are_refused(make: Any, sd15: Checkpoint, tiny: Path) -> None:
    engine = make("sd15 text_encoder", sd15.text_encoders[0])
    with pytest.raises(WeightsError):
        engine.bind(WeightSet(read_checkpoint(tiny / "sdxl").text_encoders[1]), never_cancelled)


def test_a_plan_for_another_machine_is_refused(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    emulator.is_valid = False
    with pytest.raises(PlanError, match="UNSUPPORTED_CC"):
        make("sd15 text_encoder", sd15.text_encoders[0])
    assert not emulator.engines


@pytest.mark.parametrize("emulator", [True, False], indirect=True)
def test_too_little_memory_for_a_context_is_an_error_of_the_plan(
    make: Any, emulator: Emulator, sd15: Checkpoint, tmp_path: Path
) -> None:
    emulator.has_memory = False
    with pytest.raises(PlanError, match=f"{tmp_path}: no execution context: no memory for a context"):
        make("sd15 text_encoder", sd15.text_encoders[0])


def test_a_lora_without_uses_is_freed(make: Any, sd15: Checkpoint) -> None:
    """The stacked inputs of the last call do not keep an evicted LoRA, nor its copy."""
    component = sd15.text_encoders[0]
    engine, rows = make("sd15 text_encoder", component), rows_of(text_batch())
    binding = engine.bind(linear_lora(component, 1000), never_cancelled)
    engine.run([(binding, row) for row in rows])
    stacked = engine._stack([binding.low_rank] * len(rows))
    assert engine._stack([binding.low_rank] * len(rows)) is stacked, "the copy is made once for a job's steps"
    left = [weakref.ref(binding.low_rank), *map(weakref.ref, stacked.values())]
    binding.release()
    engine._low_ranks._budget.make_place("low rank:", 0, never_cancelled)
    del binding, stacked
    gc.collect()
    assert not any(ref() is not None for ref in left)


def test_compiled_kernels_are_kept(make: Any, emulator: Emulator, sd15: Checkpoint, tmp_path: Path) -> None:
    component = sd15.text_encoders[0]
    run(make("sd15 text_encoder", component), WeightSet(component), text_batch())
    assert (tmp_path / RUNTIME_CACHE_FILE).read_bytes() == b"kernels"
    make("sd15 text_encoder", component)
    assert [engine.create_runtime_config().cache.read for engine in emulator.engines] == [None, b"kernels"]


def test_kernels_are_written_once_for_each_shape(make: Any, sd15: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of two sizes whose calls alternate do not write the file again and again."""
    saves: list[KernelCache] = []
    monkeypatch.setattr(KernelCache, "save", lambda cache: saves.append(cache))
    component = sd15.text_encoders[0]
    engine = make("sd15 text_encoder", component)
    for rows in (1, 2, 1, 2):
        run(engine, WeightSet(component), {"ids": text_batch()["ids"][:rows]})
    assert len(saves) == 2


def test_rtx_makes_cuda_graphs_itself(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    for cuda_graphs in (True, False):
        make("sd15 text_encoder", sd15.text_encoders[0], cuda_graphs=cuda_graphs)
    strategies = tensorrt_rtx.CudaGraphStrategy
    found = [engine.create_runtime_config().cuda_graph_strategy for engine in emulator.engines]
    assert found == [strategies.WHOLE_GRAPH_CAPTURE, strategies.DISABLED]


@pytest.mark.parametrize(
    ("kind", "field", "shape"), [("vae_encoder", "pixels", (3, 24, 40)), ("vae_decoder", "latents", (4, 3, 5))]
)
def test_the_vae(make: Any, sd15: Checkpoint, kind: Any, field: str, shape: tuple[int, ...]) -> None:
    batch, weights = {field: noise(1, *shape).clamp(-1, 1)}, WeightSet(sd15.vae)
    assert_near(
        run(make(f"sd15 {kind}", sd15.vae), weights, batch), run(make_engine(kind, sd15.vae)[0], weights, batch)
    )


@verify
def test_a_unet_with_all_kinds_of_changes(make: Any, emulator: Emulator, sd15: Checkpoint, tiny: Path) -> None:
    engine, torch_engine = make("sd15 unet", sd15.unet), make_engine("unet", sd15.unet)[0]
    base = WeightSet(sd15.unet)
    merged = [unet_lora(sd15, tiny / f"loras/sd15/{name}.safetensors", 0.8) for name in ("peft", "kohya")]
    first = run(engine, base, unet_inputs("sd"))["prediction"]
    for weights in (base, merged[0], linear_lora(sd15.unet, 1000), merged[1], base):
        found = run(engine, weights, unet_inputs("sd"))
        assert_near(found, run(torch_engine, weights, unet_inputs("sd")))
    assert torch.equal(found["prediction"], first)
    assert len(emulator.engines) == 1
    # One of a convolution's weights is replaced with the other.
    assert emulator.refits[1] > set(merged[0].changed)


@verify
def test_sdxl(make: Any, tiny: Path) -> None:
    component = read_checkpoint(tiny / "sdxl").unet
    expected = run(make_engine("unet", component)[0], WeightSet(component), unet_inputs("sdxl"))
    assert_near(run(make("sdxl unet", component), WeightSet(component), unet_inputs("sdxl")), expected)


@verify
def test_float16(make: Any, sd15: Checkpoint, tiny: Path) -> None:
    """Weights, latents and LoRAs are float16, and timesteps are not. OpenVINO computes in float32."""
    engine = make("sd15 unet", sd15.unet, "float16")
    torch_engine = make_engine("unet", sd15.unet)[0]
    assert engine.bind(WeightSet(sd15.unet), never_cancelled).precision == "float16"
    lora = unet_lora(sd15, tiny / "loras/sd15/peft.safetensors", 0.8)
    for weights in (WeightSet(sd15.unet), lora, linear_lora(sd15.unet, 1000)):
        expected = run(torch_engine, weights, unet_inputs("sd"))
        assert_near(run(engine, weights, unet_inputs("sd")), expected, 0.02)
