"""Triton model `vae_decoder`: latents -> pixels."""

from runtime.stages.vae import VaeDecoderStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = VaeDecoderStage
