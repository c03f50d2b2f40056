"""Triton model `denoiser`: the step loop."""

from runtime.triton.lean_imports import DIFFUSERS_EXTRAS
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.denoiser.stage:DenoiserStage"
    unused_packages = DIFFUSERS_EXTRAS
