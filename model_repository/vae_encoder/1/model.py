"""Triton model `vae_encoder`: init image -> posterior mean and std."""

from runtime.stages.vae import VaeEncoderStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = VaeEncoderStage
