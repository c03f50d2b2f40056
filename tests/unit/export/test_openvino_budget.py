"""The memory and the limits of OpenVINO engines: a LoRA's inputs count, and a network never waits for itself."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.compiled import low_rank
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.engines.openvino.openvino_engine import OpenVinoEngine
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.openvino_engines import compiled_count, convolution_lora, linear_lora, make_openvino
from tests.unit.runtime.engines import make_engine
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

_IDS = {"ids": torch.randint(200, (2, 77), generator=torch.Generator().manual_seed(0))}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def sd15(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd15")


@pytest.fixture(scope="module")
def engine(artifacts: Path, sd15: Checkpoint) -> OpenVinoEngine:
    return make_openvino(artifacts, "unet", sd15.unet)[0]


def test_a_lora_fits_wherever_the_base_does(artifacts: Path, sd15: Checkpoint) -> None:
    """The first network of a request may exceed the budget, and its low-rank inputs belong to it."""
    component = sd15.text_encoders[0]
    lora = linear_lora(component, 1000)
    expected = run(make_engine("text_encoder", component)[0], lora, _IDS)
    engine, budget = make_openvino(artifacts, "text_encoder", component, budget=10)
    assert_near(run(engine, lora, _IDS), expected)
    with budget.one_request():
        assert_near(run(engine, lora, _IDS), expected)


def test_a_lora_waits_for_the_memory_of_others(artifacts: Path, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine, budget = make_openvino(artifacts, "text_encoder", component)
    held = engine.bind(linear_lora(component, 1000), never_cancelled)
    budget._budget = budget.nbytes
    with pytest.raises(TimeoutError):
        engine.bind(linear_lora(component, 2000), _never_waits)
    held.release()
    engine.bind(linear_lora(component, 2000), _never_waits).release()
    assert compiled_count(budget) == 1 and budget.nbytes <= budget._budget


def _never_waits() -> None:
    if "make_room" in {frame.name for frame in traceback.extract_stack()}:
        raise TimeoutError("it waits")


@pytest.mark.verify
@pytest.mark.parametrize("make", [linear_lora, convolution_lora])
def test_the_size_of_low_rank_inputs_is_known_before_they_are_read(
    engine: OpenVinoEngine, sd15: Checkpoint, make: Any
) -> None:
    weights = make(sd15.unet, 1000, rank=17)
    manifest = engine._graphs["all"].manifest
    part = low_rank.read_low_rank(manifest, weights, never_cancelled)
    assert low_rank.part_bytes(manifest, weights) == part.nbytes > 0


def test_other_threads_memory_is_not_that_of_a_compiled_model(artifacts: Path, sd15: Checkpoint) -> None:
    """The whole process is measured."""
    component = sd15.text_encoders[0]
    engine, budget = make_openvino(artifacts, "text_encoder", component)
    held: list[torch.Tensor] = []
    engine.bind(WeightSet(component), lambda: held.append(torch.ones(4 << 20))).release()
    assert sum(tensor.nbytes for tensor in held) > 100e6
    assert budget.nbytes < 35e6


def test_a_tokenizer_of_fewer_tokens(artifacts: Path, sd15: Checkpoint) -> None:
    component = sd15.text_encoders[0]
    engine, _ = make_openvino(artifacts, "text_encoder", component)
    short = {"ids": _IDS["ids"][:, :40]}
    expected = run(make_engine("text_encoder", component)[0], WeightSet(component), short)
    assert_near(run(engine, WeightSet(component), short), expected)


@pytest.mark.parametrize("shape", [(5, 32), (823, 33), (7,)])
def test_a_token_embedding_that_contradicts_its_configuration(
    artifacts: Path, sd15: Checkpoint, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    component = sd15.text_encoders[0]
    name = "text_model.embeddings.token_embedding.weight"
    assert component.shapes[name] != shape
    engine, _ = make_openvino(artifacts, "text_encoder", component)
    other = component.model_copy()
    object.__setattr__(other, "shapes", {**component.shapes, name: shape})
    with pytest.raises(WeightsError, match=re.escape(f"token_embedding.weight is {list(shape)}, not ")):
        engine.bind(WeightSet(other), never_cancelled)
