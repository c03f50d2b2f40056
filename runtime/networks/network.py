"""What a graph's network is."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# What a configuration says of its origin, of the size that its model was trained at, and of how it wants to answer.
_NO_PART = {"transformers_version", "dtype", "sample_size", "return_dict", "output_hidden_states"}


class Network(nn.Module, ABC):
    """A graph's module. `weights` is the part of it whose parameter names are the canonical ones."""

    @property
    def weights(self) -> nn.Module:
        return self

    @classmethod
    @abstractmethod
    def architecture(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with every default filled in and nothing that makes no difference to the network."""


def complete(make: Callable[..., object], config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `make`: as configured, else their defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(make).parameters.items()}
    return {name: config.get(name, default) for name, default in defaults.items() if name not in _NO_PART}
