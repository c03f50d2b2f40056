"""Triton model `finish`: pixels -> encoded images and the response. Imports no torch."""

from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.finish:FinishStage"
    keeps_little = True
