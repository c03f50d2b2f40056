"""REPORT: what the stages of a job have measured, and which tensors they have written."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lorikeet.schema import EngineReceipt


class TensorFacts(BaseModel):
    """The dtype, shape and BLAKE2b digest of a tensor that a stage wrote."""

    model_config = ConfigDict(frozen=True)
    dtype: str
    shape: tuple[int, ...]
    digest: str


class Report(BaseModel):
    """`timings`: seconds by name, and `warnings`: what was ignored of the request; both are for the response.

    `has_nsfw_concepts`: for each picture, whether the safety checker flagged it. `tensors`: the facts of each tensor
    that a stage wrote, by name.
    """

    timings: dict[str, float] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    has_nsfw_concepts: list[bool] = Field(default_factory=list)
    engine: EngineReceipt = Field(default_factory=EngineReceipt)
    tensors: dict[str, TensorFacts] = Field(default_factory=dict)
