"""The models as Triton reads them."""

from __future__ import annotations

from itertools import pairwise

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from runtime.jobs.job_table import STAGES
from runtime.settings import ROOT


def test_the_ensemble_is_a_chain() -> None:
    """Two of its steps that run side by side, and fail, can end Triton."""
    text = (ROOT / "model_repository" / "lora_image_to_image" / "config.pbtxt").read_text()
    steps = text_format.Parse(text, ModelConfig()).ensemble_scheduling.step
    assert [step.model_name for step in steps] == [stage for stage in STAGES if stage != "jobs"]
    for before, step in pairwise(steps):
        assert set(step.input_map.values()) & set(before.output_map.values()), step.model_name
