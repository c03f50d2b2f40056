"""Triton model `vae_decoder`: latents -> pixels."""

from runtime.triton.lean_imports import DIFFUSERS_EXTRAS
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.vae:VaeDecoderStage"
    unused_packages = DIFFUSERS_EXTRAS
