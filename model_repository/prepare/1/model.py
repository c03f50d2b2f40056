"""Triton model `prepare`: request JSON -> validated plan; admits requests and fetches files. Imports no torch."""

from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = "runtime.stages.prepare.stage:PrepareStage"
    keeps_little = True
