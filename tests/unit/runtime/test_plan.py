"""The plan: all that the later stages know, and nothing that they need not know."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobRef
from runtime.plan import Plan
from tests.unit.runtime.plans import make_plan


def _travelled(plan: Plan) -> Plan:
    return Plan.model_validate_json(plan.to_json())


def test_a_plan_arrives_as_it_was_sent(sdxl: Checkpoint) -> None:
    plan = make_plan(
        sdxl, JobRef(2**63 - 1, 1023), loras={}, scheduler="Euler", image_size={"width": 640, "height": 64}
    )
    assert _travelled(plan) == plan
    assert _travelled(plan).checkpoint.unet.digest == sdxl.unet.digest
    assert _travelled(plan).job == JobRef(2**63 - 1, 1023)


@given(prompt=st.text(max_size=100), seed=st.integers(0, 2**64 - 1), strength=st.floats(0, 1))
def test_numbers_and_texts_arrive_exactly(sd15: Checkpoint, prompt: str, seed: int, strength: float) -> None:
    plan = make_plan(sd15, prompt=prompt, noise_strength=strength).model_copy(update={"seed": seed})
    found = _travelled(plan)
    assert (found.request.prompt, found.seed, found.request.noise_strength) == (prompt, seed, strength)


def test_infinity_in_a_schedulers_configuration_arrives(sd15: Checkpoint) -> None:
    """DPMSolverMultistepScheduler writes `"lambda_min_clipped": -Infinity`."""
    clipped = sd15.model_copy(update={"scheduler": sd15.scheduler | {"lambda_min_clipped": -math.inf}})
    assert _travelled(make_plan(clipped)).checkpoint.scheduler["lambda_min_clipped"] == -math.inf


def test_defaults_do_not_travel_and_are_there_again(sd15: Checkpoint) -> None:
    plan = make_plan(sd15)
    assert set(json.loads(plan.to_json())["request"]) == {"model_name", "prompt", "seed"}
    assert _travelled(plan).request.num_inference_steps == 30


def test_guidance_up_to_1_is_none(sd15: Checkpoint) -> None:
    """As in diffusers' pipelines."""
    scales = (0.0, 0.5, 1.0, 1.0001, 7.5)
    assert [make_plan(sd15, guidance_scale=scale).guided for scale in scales] == [False, False, False, True, True]
