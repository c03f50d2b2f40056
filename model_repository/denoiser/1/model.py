"""Triton model `denoiser`: the step loop."""

from runtime.triton.lean_imports import DIFFUSERS, TORCH
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.denoiser.stage:DenoiserStage"
    libraries = (TORCH, DIFFUSERS)
