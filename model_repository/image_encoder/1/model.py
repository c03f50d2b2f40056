"""Triton model `image_encoder`: image prompts -> keys and values of the IP-Adapters. Imports torch at its first use."""

from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.image_encoder.stage:ImageEncoderStage"
