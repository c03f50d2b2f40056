"""A network with flat inputs and outputs, as a graph has them: single named tensors in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from export.low_rank import LowRankInputs
from runtime.artifacts.flat_fields import flat_name, flatten
from runtime.networks.architecture import NetworkKind
from runtime.networks.attention import ImagePrompt
from runtime.networks.network import Network

Tensors = dict[str, torch.Tensor]
Fields = Mapping[str, torch.Tensor | tuple[torch.Tensor, ...]]


class FlatNetwork(nn.Module):
    """Takes tensors in the order of `inputs`, and returns tensors in the order of `outputs`."""

    def __init__(
        self,
        kind: NetworkKind,
        network: Network,
        low_rank: LowRankInputs,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network
        self._run = _RUN.get(kind, _run_network)
        self._low_rank = low_rank
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    @property
    def prefix(self) -> str:
        """What precedes a canonical parameter name in the names of this module's parameters."""
        weights = self.network.weights
        place: str = next(name for name, module in self.named_modules() if module is weights)
        return f"{place}."

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self._inputs, values, strict=True))
        self._low_rank.use({name: given.pop(name) for name in self._low_rank.axes})
        found = flatten(self._run(self.network, given))
        assert found.keys() == set(self._outputs), "the configuration names other outputs than the network has"
        return tuple(found[name] for name in self._outputs)


def remove_token_embedding(kind: NetworkKind, network: Network) -> tuple[str, ...]:
    """Remove what a graph from token embeddings does not use. Returns the names of the removed parameters.

    torch's exporter must not see unused parameters: it mixes up the names of the others.
    """
    if kind != "text_encoder":
        return ()
    text_model: Any = network.text_model
    del text_model.embeddings.token_embedding
    return ("text_model.embeddings.token_embedding.weight",)


def _run_network(network: Any, given: Tensors) -> Fields:
    found: Fields = network(**given)
    return found


def _run_text_encoder(network: Any, given: Tensors) -> Fields:
    found: Fields = network.encode(**given)
    return found


def _run_unet(network: Any, given: Tensors) -> Fields:
    prompt = _image_prompt(network, given) if "ip_k" in given else None
    residuals: list[torch.Tensor] = []
    while (name := flat_name("residuals", len(residuals))) in given:
        residuals.append(given.pop(name))
    return {"prediction": network.predict(**given, residuals=tuple(residuals), image_prompt=prompt)}


def _image_prompt(network: Any, given: Tensors) -> ImagePrompt:
    masks = {level: given.pop(f"ip_mask_{level}") for level in network.image_prompts.levels}
    return ImagePrompt(given.pop("ip_k"), given.pop("ip_v"), given.pop("ip_bias"), masks)


_RUN: dict[NetworkKind, Callable[[Any, Tensors], Fields]] = {"unet": _run_unet, "text_encoder": _run_text_encoder}
