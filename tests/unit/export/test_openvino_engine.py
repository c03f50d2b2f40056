"""The OpenVINO engine computes what the torch engine computes, for every kind of network, weights and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.cpu import has_bfloat16
from runtime.engines.engine import CallSizes, WeightsError, never_cancelled
from runtime.engines.openvino.openvino_engine import OpenVinoEngine
from runtime.networks.architecture import NetworkKind
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.openvino_engines import compiled_count, convolution_lora, full_change, linear_lora, make_openvino
from tests.unit.runtime.engines import batched, make_engine, noise, rows_of, unet_inputs
from tests.unit.runtime.merging import Changes
from tests.unit.runtime.tiny_checkpoints import read_checkpoint
from tests.unit.runtime.unet_sets import unet_lora

pytestmark = pytest.mark.verify  # `make test` runs the engine in tests/server/test_openvino.py

IN_BFLOAT16 = 0.07  # about that of torch; 0.1 and more with rounded timesteps
FIXED = CallSizes(2, 8, 8)
MakeLora = Callable[..., WeightSet]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def sd15(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd15")


@pytest.fixture(scope="module")
def sdxl(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sdxl")


@pytest.fixture(scope="module")
def engine(artifacts: Path, sd15: Checkpoint) -> OpenVinoEngine:
    return make_openvino(artifacts, "unet", sd15.unet)[0]


def test_the_base_weights(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    expected = run(make_engine("unet", sd15.unet)[0], WeightSet(sd15.unet), unet_inputs("sd"))
    assert_near(run(engine, WeightSet(sd15.unet), unet_inputs("sd")), expected)
    binding = engine.bind(WeightSet(sd15.unet), never_cancelled)
    assert binding.precision == "float32"
    binding.release()


def test_a_text_encoder_with_vectors_of_its_own(artifacts: Path, sdxl: Checkpoint) -> None:
    component = sdxl.text_encoders[1]
    engine, _ = make_openvino(artifacts, "text_encoder", component)
    size = component.config["vocab_size"]
    ids = torch.randint(3, size, (2, 77), generator=torch.Generator().manual_seed(0))
    ids[0, 5], ids[1, 7] = size + 1, size
    inputs = {"ids": ids, "vectors": noise(2, 2, component.config["hidden_size"])}
    expected = run(make_engine("text_encoder", component)[0], WeightSet(component), inputs)
    assert_near(run(engine, WeightSet(component), inputs), expected)


def test_a_first_picture_of_one_place_changes_no_later_one(artifacts: Path, sdxl: Checkpoint) -> None:
    engine, _ = make_openvino(artifacts, "unet", sdxl.unet)
    weights, inputs = WeightSet(sdxl.unet), unet_inputs("sdxl")
    run(engine, weights, inputs | {"latent": noise(2, 4, 4, 4)})
    assert_near(run(engine, weights, inputs), run(make_engine("unet", sdxl.unet)[0], weights, inputs))


def test_sdxl(artifacts: Path, sdxl: Checkpoint) -> None:
    engine, _ = make_openvino(artifacts, "unet", sdxl.unet)
    expected = run(make_engine("unet", sdxl.unet)[0], WeightSet(sdxl.unet), unet_inputs("sdxl"))
    assert_near(run(engine, WeightSet(sdxl.unet), unet_inputs("sdxl")), expected)


def attention_lora(component: Component) -> WeightSet:
    """A LoRA of some linear layers, as most trainers make it."""
    (source,) = linear_lora(component, 1000).sources
    assert isinstance(source, Changes)
    changes = {name: change for name, change in source.changes.items() if ".to_q." in name or ".to_v." in name}
    return WeightSet(component, (Changes("attention", changes),))


@pytest.mark.parametrize("make", [linear_lora, convolution_lora])
def test_low_rank_loras_compile_nothing(artifacts: Path, sd15: Checkpoint, make: MakeLora) -> None:
    engine, budget = make_openvino(artifacts, "unet", sd15.unet)
    base, torch_engine = WeightSet(sd15.unet), make_engine("unet", sd15.unet)[0]
    first = run(engine, base, unet_inputs("sd"))["prediction"]
    for seed, rank in ((1000, 4), (2000, 16), (3000, 20)):
        weights = make(sd15.unet, seed, rank)
        found = run(engine, weights, unet_inputs("sd"))
        assert_near(found, run(torch_engine, weights, unet_inputs("sd")))
        assert (found["prediction"] - first).abs().max() > 0.01 * first.std()
        assert compiled_count(budget) == 2  # without low-rank inputs, and with
    assert torch.equal(run(engine, base, unet_inputs("sd"))["prediction"], first)


def test_a_lora_of_some_layers(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    weights = attention_lora(sd15.unet)
    assert_near(
        run(engine, weights, unet_inputs("sd")), run(make_engine("unet", sd15.unet)[0], weights, unet_inputs("sd"))
    )


@pytest.mark.parametrize("name", ["peft", "kohya"])
def test_a_lora_file_with_convolutions(engine: OpenVinoEngine, sd15: Checkpoint, tiny: Path, name: str) -> None:
    weights = unet_lora(sd15, tiny / f"loras/sd15/{name}.safetensors", 0.8)
    expected = run(make_engine("unet", sd15.unet)[0], weights, unet_inputs("sd"))
    assert_near(run(engine, weights, unet_inputs("sd")), expected)


@pytest.mark.parametrize("make", [linear_lora, convolution_lora])
def test_rows_with_different_loras_share_a_call(engine: OpenVinoEngine, sd15: Checkpoint, make: MakeLora) -> None:
    """Each row's bytes are those of a call in which both rows have its LoRA."""
    rows = rows_of(unet_inputs("sd"))
    bindings = [engine.bind(make(sd15.unet, seed), never_cancelled) for seed in (1000, 2000)]
    assert len({engine.batch_key(binding, rows[0]) for binding in bindings}) == 1
    together = batched(engine.run(list(zip(bindings, rows, strict=True))))["prediction"]
    for index, binding in enumerate(bindings):
        alone = batched(engine.run([(binding, rows[index])] * 2))["prediction"]
        assert torch.equal(together[index], alone[0])
    swapped = batched(engine.run([(bindings[1], rows[0])] * 2))["prediction"]
    assert not torch.equal(together[0], swapped[0])
    for binding in bindings:
        binding.release()


def test_loras_of_different_ranks_do_not_share_a_call(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    row = rows_of(unet_inputs("sd"))[0]
    bindings = [engine.bind(linear_lora(sd15.unet, 1000, rank), never_cancelled) for rank in (16, 17)]
    assert engine.batch_key(bindings[0], row) != engine.batch_key(bindings[1], row)
    for binding in bindings:
        binding.release()


def test_two_loras_on_one_layer_add_up(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    both = WeightSet(sd15.unet, linear_lora(sd15.unet, 1000).sources + linear_lora(sd15.unet, 2000).sources)
    expected = run(make_engine("unet", sd15.unet)[0], both, unet_inputs("sd"))
    assert_near(run(engine, both, unet_inputs("sd")), expected)


def test_fixed_sizes(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    batch = unet_inputs("sd")
    for weights in (WeightSet(sd15.unet), linear_lora(sd15.unet, 1000), convolution_lora(sd15.unet, 1000)):
        expected = run(make_engine("unet", sd15.unet)[0], weights, batch)
        assert_near(run(engine, weights, batch, FIXED), expected)
    binding = engine.bind(weights, never_cancelled, FIXED)
    assert binding.has_fixed_sizes
    binding.release()


@pytest.mark.parametrize("sizes", [None, FIXED])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_lowest_precision(
    artifacts: Path, request: pytest.FixtureRequest, name: str, sizes: CallSizes | None
) -> None:
    """bfloat16 where the processor has it, as a server takes it. With timesteps and sizes that bfloat16 cannot hold."""
    unet = request.getfixturevalue(name).unet
    precision = "bfloat16" if has_bfloat16() else "float32"
    engine, _ = make_openvino(artifacts, "unet", unet, dtype=getattr(torch, precision))
    batch = unet_inputs("sd" if name == "sd15" else "sdxl") | {"t": torch.tensor([997.0, 501.0])}
    if name == "sdxl":
        batch["time_ids"] = torch.tensor([[1021.0, 1019, 0, 3, 1021, 1019]] * 2)
    for weights in (WeightSet(unet), linear_lora(unet, 1000), convolution_lora(unet, 1000)):
        expected = run(make_engine("unet", unet)[0], weights, batch)
        assert_near(run(engine, weights, batch, sizes), expected, IN_BFLOAT16)
    binding = engine.bind(WeightSet(unet), never_cancelled, sizes)
    assert binding.precision == precision
    binding.release()


@pytest.mark.parametrize(
    ("kind", "field", "shape"), [("vae_encoder", "pixels", (3, 24, 40)), ("vae_decoder", "latents", (4, 3, 5))]
)
def test_the_vae(artifacts: Path, sd15: Checkpoint, kind: NetworkKind, field: str, shape: tuple[int, ...]) -> None:
    engine, _ = make_openvino(artifacts, kind, sd15.vae)
    batch = {field: noise(1, *shape).clamp(-1, 1)}
    weights = WeightSet(sd15.vae)
    assert_near(run(engine, weights, batch), run(make_engine(kind, sd15.vae)[0], weights, batch))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_text_encoders(artifacts: Path, request: pytest.FixtureRequest, tiny: Path, name: str) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(name)
    for component in checkpoint.text_encoders:
        engine, _ = make_openvino(artifacts, "text_encoder", component)
        ids = torch.randint(200, (2, 77), generator=torch.Generator().manual_seed(0))
        weights = WeightSet(component)
        expected = run(make_engine("text_encoder", component)[0], weights, {"ids": ids})
        assert_near(run(engine, weights, {"ids": ids}), expected)


def test_a_full_change_is_merged(engine: OpenVinoEngine, sd15: Checkpoint) -> None:
    weights = full_change(sd15.unet, 1)
    expected = run(make_engine("unet", sd15.unet)[0], weights, unet_inputs("sd"))
    assert_near(run(engine, weights, unet_inputs("sd")), expected)


def test_a_checkpoint_has_at_most_three_compiled_models(artifacts: Path, sd15: Checkpoint) -> None:
    engine, budget = make_openvino(artifacts, "unet", sd15.unet)
    for count in range(1, 6):
        engine.bind(full_change(sd15.unet, count), never_cancelled).release()
        assert compiled_count(budget) == min(count, 3)


def test_a_graph_of_other_weights_is_refused(engine: OpenVinoEngine, sdxl: Checkpoint) -> None:
    with pytest.raises(WeightsError, match="unet"):
        engine.bind(WeightSet(sdxl.unet), never_cancelled)
