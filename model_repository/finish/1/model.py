"""Pixels -> encoded files, and the response. No torch."""

from runtime.stages.finish import FinishStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = FinishStage
