"""Triton model `vae_encoder`: init image -> posterior mean and std."""

from runtime.triton.lean_imports import DIFFUSERS, TORCH
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.vae.stage:VaeEncoderStage"
    libraries = (TORCH, DIFFUSERS)
