"""Triton model `text_encoder`: prompts -> embeddings, with merged LoRAs."""

from runtime.triton.lean_imports import TORCH, TRANSFORMERS
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.text_encoder:TextEncoderStage"
    libraries = (TORCH, TRANSFORMERS)
