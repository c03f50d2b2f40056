"""Triton model `denoiser`: the step loop."""

from runtime.stages.denoiser.stage import DenoiserStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = DenoiserStage
