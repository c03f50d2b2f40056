"""Weights that change the text encoders and the U-Net: LoRAs and textual inversions."""

from typing import Annotated

from pydantic import Field, StringConstraints

from lorikeet.schema.base import FileRef, Float, Model

Token = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class LoraWeight(Model):
    """One LoRA. All LoRAs of a request are merged."""

    path: FileRef = Field(description="URL, Hub id or path of the LoRA weights.")
    scale: Float = Field(default=1.0, description="Strength of the LoRA: any finite number; 0 has no effect.")


class Embedding(Model):
    """One textual inversion."""

    path: FileRef = Field(description="URL, Hub id or path of the embedding weights.")
    tokens: list[Token] = Field(
        default_factory=lambda: ["<s0>", "<s1>"],
        max_length=100,
        description="Tokens in the prompts: one that stands for all vectors of the embedding, or one for each; "
        "unset means <s0>, <s1> and so on, one for each.",
    )
