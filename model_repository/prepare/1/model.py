"""JSON -> validated plan; admission; files fetched. No torch."""

from runtime.stages.prepare.stage import PrepareStage
from runtime.triton.stage_model import StageModel


class TritonPythonModel(StageModel):
    stage_class = PrepareStage
