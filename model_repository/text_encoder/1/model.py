"""Prompts -> embeddings, LoRA-merged."""

from runtime.stages.text_encoder import TextEncoderStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = TextEncoderStage
