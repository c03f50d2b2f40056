"""Triton model `vae_decoder`: latents -> pixels."""

from runtime.triton.lean_imports import DIFFUSERS, TORCH
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.vae.stage:VaeDecoderStage"
    libraries = (TORCH, DIFFUSERS)
