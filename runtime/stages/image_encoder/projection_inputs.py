"""What the network of an IP-Adapter takes for a picture, by the kind of adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorikeet.schema import IPAdapter
from runtime.engines.engine import Outputs
from runtime.plan import IpAdapterPlan
from runtime.stages.image_encoder.face_prompts import FacePrompt

Inputs = dict[str, torch.Tensor]


def projection_inputs(
    adapter: IpAdapterPlan, asked: IPAdapter, encoded: Sequence[Outputs], face: FacePrompt | None
) -> list[Inputs]:
    """The inputs of each branch: first the negative one, if there are two.

    encoded: the image encoder's outputs of the branches; none for an adapter that does not take them.
    """
    if face is None:
        return _of_picture(adapter, encoded, zero_negative=not asked.unconditional_noising_factor)
    if adapter.kind == "plus":  # InstantID: the resampler takes the embedding as its only token
        return [{"penultimate": embedding[None]} for embedding in face.embeddings]
    inputs = [{"face": embedding} for embedding in face.embeddings]
    if adapter.kind == "faceid":
        return inputs
    shortcut = torch.tensor(float(asked.image_projection_shortcut))
    return [
        {**given, "penultimate": _tensor(outputs["penultimate"]), "shortcut": shortcut}
        for given, outputs in zip(inputs, encoded, strict=True)
    ]


def _of_picture(adapter: IpAdapterPlan, encoded: Sequence[Outputs], *, zero_negative: bool) -> list[Inputs]:
    """As in diffusers, the negative prompt of a base adapter is an embedding of zeros; of the others it is that of a
    picture of zeros."""
    if adapter.kind != "base":
        return [{"penultimate": _tensor(outputs["penultimate"])} for outputs in encoded]
    embeds = [_tensor(outputs["embeds"]) for outputs in encoded]
    if zero_negative:
        embeds[:-1] = [torch.zeros_like(negative) for negative in embeds[:-1]]
    return [{"embeds": given} for given in embeds]


def _tensor(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value
