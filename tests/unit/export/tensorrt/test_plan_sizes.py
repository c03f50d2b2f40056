"""A plan says before a call whether it takes the call's sizes, and says what the call then does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.tensorrt.profiles import input_shapes
from runtime.artifacts.graph_call import GraphCall
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import SizedEngine, SizesError, never_cancelled
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.plan_sizes import check_sizes
from runtime.engines.tensorrt.tensorrt_engine import TensorRtEngine
from runtime.weights.weight_set import WeightSet
from tests.unit.export.conftest import Graphs
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.tensorrt.calls import linear_lora, text_batch
from tests.unit.export.tensorrt.emulator import Emulator
from tests.unit.export.tensorrt.plans import PROFILE, make_plan
from tests.unit.runtime.engines import make_engine, noise

LARGEST = GraphCall(4, 16, 16, 2, 2, 16)


@pytest.mark.parametrize(
    ("changes", "axis", "reason"),
    [
        ({"rows": 5}, "rows", r"5 rows in a call \(LORIKEET_BLOCK_ROWS\); the TensorRT plan of the unet takes 1 to 4"),
        ({"height": 17}, "height", r"17 latents of height, an eighth of the pixels; .* takes 3 to 16"),
        ({"width": 2}, "width", r"2 latents of width.* takes 3 to 16"),
        ({"chunks": 3}, "text_length", r"231 tokens of text.* takes 77 to 154"),
        ({"adapters": 3}, "adapters", r"3 image prompts.* takes 0 to 2"),
        ({"tokens": 257}, "ip_tokens", r"257 tokens of an image prompt.* takes 1 to 16"),
    ],
)
def test_each_size_of_a_unet(graphs: Graphs, tmp_path: Path, changes: Any, axis: str, reason: str) -> None:
    architecture, artifact = graphs.network("sd15 unet").architecture, graphs.artifact("sd15 unet", "linear")
    plan = make_plan(artifact, architecture, tmp_path)
    for taken in (LARGEST, LARGEST._replace(adapters=0, tokens=1), GraphCall(1, 3, 3, 1, 0, 1)):
        check_sizes(plan, architecture, taken)
    with pytest.raises(SizesError, match=reason) as error:
        check_sizes(plan, architecture, LARGEST._replace(**changes))
    assert error.value.axis == axis


def _vae(make: Callable[..., TensorRtEngine], sd15: Checkpoint) -> TensorRtEngine:
    engine = make("sd15 vae_decoder", sd15.vae)
    assert isinstance(engine, SizedEngine) and not isinstance(make_engine("vae_decoder", sd15.vae)[0], SizedEngine)
    return engine


@pytest.mark.parametrize("size", [(3, 3), (16, 16), (2, 3), (3, 17)])
def test_a_call_is_refused_exactly_when_it_would_fail(make: Any, sd15: Checkpoint, size: tuple[int, int]) -> None:
    engine, batch = _vae(make, sd15), {"latents": noise(1, 4, *size)}
    if min(size) >= 3 and max(size) <= 16:
        engine.check_sizes(GraphCall(1, *size, 1, 0))
        run(engine, WeightSet(sd15.vae), batch)
        return
    with pytest.raises(SizesError, match="takes 3 to 16"):
        engine.check_sizes(GraphCall(1, *size, 1, 0))
    with pytest.raises(PlanError, match="the plan takes"):
        run(engine, WeightSet(sd15.vae), batch)


def test_a_lora_of_a_larger_rank_is_merged(make: Any, emulator: Emulator, sd15: Checkpoint) -> None:
    """The plan takes ranks up to 64."""
    component = sd15.text_encoders[0]
    engine, torch_engine = make("sd15 text_encoder", component), make_engine("text_encoder", component)[0]
    for rank, refits in ((64, 1), (65, 2)):
        weights = linear_lora(component, 1000, rank=rank)
        assert_near(run(engine, weights, text_batch()), run(torch_engine, weights, text_batch()))
        assert len(emulator.refits) == refits


def test_controlnets_need_no_image_prompts(graphs: Graphs) -> None:
    """A profile without IP-Adapters takes the residuals of a ControlNet, and a call without any."""
    manifest, architecture = graphs.artifact("sd15 unet", "linear").manifest, graphs.network("sd15 unet").architecture
    for adapters in ((0, 0, 0), (1, 1, 2)):
        profile = PROFILE.model_copy(update={"adapters": adapters})
        smallest, _, largest = input_shapes(manifest, architecture, profile)["residual_0"]
        assert (smallest[0], *smallest[2:]) == (1, 1, 1) and (largest[0], *largest[2:]) == (4, 16, 16)


def test_a_bound_engine_still_names_the_sizes(make: Any, sd15: Checkpoint) -> None:
    engine = _vae(make, sd15)
    binding = engine.bind(WeightSet(sd15.vae), never_cancelled)
    with pytest.raises(PlanError, match=r"latents is \[1, 4, 17, 17\]"):
        engine.run([(binding, {"latents": torch.zeros(4, 17, 17)})])
    binding.release()
