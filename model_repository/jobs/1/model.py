"""Triton model `jobs`: progress and cancel. Imports no torch."""

from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.jobs:JobsStage"
