"""CUDA graphs of full TensorRT, over the emulator: replays compute what calls compute, whatever changed in between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import never_cancelled
from runtime.engines.tensorrt import call_graphs
from runtime.engines.tensorrt.call_graphs import CALLS_BEFORE
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.tensorrt.calls import biases, linear_lora, text_batch
from tests.unit.export.tensorrt.emulator import Emulator, Engine
from tests.unit.runtime.engines import make_engine, rows_of

NAME = "sd15 text_encoder"
pytestmark = pytest.mark.parametrize("emulator", [False], indirect=True)


def ids(seed: int, rows: int = 2) -> dict[str, torch.Tensor]:
    return {"ids": torch.randint(200, (rows, 77), generator=torch.Generator().manual_seed(seed))}


@pytest.fixture
def expect(sd15: Checkpoint) -> Callable[..., Any]:
    """What the torch engine computes."""
    engine = make_engine("text_encoder", sd15.text_encoders[0])[0]
    return lambda weights, batch: run(engine, weights, batch)


def replays(engine: Any, emulated: Engine, weights: WeightSet, batch: Any) -> tuple[Any, int]:
    """The outputs of one call, and how many graphs were replayed for it."""
    before = emulated.replays
    found = run(engine, weights, batch)
    return found, emulated.replays - before


def warm_up(engine: Any, weights: WeightSet, batch: Any) -> None:
    """The last of these calls captures the graph."""
    for _ in range(CALLS_BEFORE + 1):
        run(engine, weights, batch)


def test_replays_have_the_bytes_of_calls(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    """Each call has other token ids. Without the setting, no call is captured."""
    engines = [make(NAME, sd15.text_encoders[0], cuda_graphs=cuda_graphs) for cuda_graphs in (True, False)]
    calls = [rows_of(ids(seed)) for seed in range(CALLS_BEFORE + 5)]
    bound = [engine.bind(WeightSet(sd15.text_encoders[0]), never_cancelled) for engine in engines]
    found, expected = (
        [engine.run([(binding, row) for row in rows])[0]["pooled"] for rows in calls]
        for engine, binding in zip(engines, bound, strict=True)
    )
    # Compared at the end: a call leaves the outputs of the calls before.
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert [engine.calls for engine in emulator.engines] == [CALLS_BEFORE + 5] * 2
    assert [engine.replays for engine in emulator.engines] == [4, 0]


def test_a_refit_drops_the_graphs(make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any) -> None:
    component = sd15.text_encoders[0]
    base, changed, engine = WeightSet(component), biases(component, 1, "q_proj"), make(NAME, component)
    warm_up(engine, base, ids(0))
    first, count = replays(engine, emulator.engines[0], base, ids(1))
    assert count == 1
    for number in range(CALLS_BEFORE + 2):
        found, count = replays(engine, emulator.engines[0], changed, ids(1))
        assert count == (number > CALLS_BEFORE)
        assert_near(found, expect(changed, ids(1)))
    again, count = replays(engine, emulator.engines[0], base, ids(1))
    assert torch.equal(again["pooled"], first["pooled"]) and count == 0


def test_loras_in_the_inputs_share_a_graph(make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any) -> None:
    component = sd15.text_encoders[0]
    engine = make(NAME, component)
    warm_up(engine, linear_lora(component, 1000), ids(0))
    for seed in (1000, 2000):
        weights = linear_lora(component, seed)
        found, count = replays(engine, emulator.engines[0], weights, ids(1))
        assert_near(found, expect(weights, ids(1)))
        assert count == 1
    assert len(emulator.refits) == 1


def test_other_shapes_drop_the_graph(make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any) -> None:
    """A graph uses what the context prepared for its shapes, and the memory for activations. Both are replaced."""
    base, engine = WeightSet(sd15.text_encoders[0]), make(NAME, sd15.text_encoders[0])
    for rows in (1, 4, 1, 4):
        counts = []
        for seed in range(CALLS_BEFORE + 3):
            found, count = replays(engine, emulator.engines[0], base, ids(seed, rows))
            assert_near(found, expect(base, ids(seed, rows)))
            counts.append(count)
        assert counts[0] == 0 and counts[-1] == 1


def test_refused_shapes_drop_the_graph(make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any) -> None:
    """The context has some of the refused shapes."""
    base, engine = WeightSet(sd15.text_encoders[0]), make(NAME, sd15.text_encoders[0])
    warm_up(engine, base, ids(0))
    with pytest.raises(PlanError):
        run(engine, base, ids(0, rows=5))
    found, count = replays(engine, emulator.engines[0], base, ids(1))
    assert_near(found, expect(base, ids(1)))
    assert count == 0


def test_a_large_call_is_not_captured(
    make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph keeps the inputs, LoRAs included, and the outputs of its call."""
    component = sd15.text_encoders[0]
    base, lora = WeightSet(component), linear_lora(component, 1000)
    engine = make(NAME, component)
    embeddings = 4 * 2 * math.prod(component.shapes["text_model.embeddings.position_embedding.weight"])
    cases = [(embeddings, base, 0), (10 * embeddings, base, 1), (10 * embeddings, lora, 0), (1 << 30, lora, 1)]
    for most, weights, count in cases:
        monkeypatch.setattr(call_graphs, "_MAX_BYTES", most)
        warm_up(engine, weights, ids(0))
        found, counted = replays(engine, emulator.engines[0], weights, ids(1))
        assert_near(found, expect(weights, ids(1)))
        assert counted == count


def test_a_plan_that_cannot_be_captured_runs_without_graphs(
    make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.can_capture = False
    base, engine = WeightSet(sd15.text_encoders[0]), make(NAME, sd15.text_encoders[0])
    for seed in range(3 * CALLS_BEFORE):
        assert_near(run(engine, base, ids(seed)), expect(base, ids(seed)))
    assert emulator.engines[0].calls == 3 * CALLS_BEFORE and emulator.engines[0].replays == 0
    assert caplog.text.count("run without CUDA graphs: a call failed") == 1


def test_a_plan_that_is_loaded_again_has_no_old_graphs(
    make: Any, emulator: Emulator, sd15: Checkpoint, expect: Any
) -> None:
    component = sd15.text_encoders[0]
    engine, changed = make(NAME, component), biases(component, 1, "q_proj")
    warm_up(engine, WeightSet(component), text_batch())
    emulator.failures = 1
    assert_near(run(engine, changed, text_batch()), expect(changed, text_batch()))
    assert [found.replays for found in emulator.engines] == [0, 0]
