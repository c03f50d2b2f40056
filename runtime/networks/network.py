"""The base class of the networks."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """The module of an architecture. `weights` is the submodule whose parameter names are the canonical ones."""

    @property
    def weights(self) -> nn.Module:
        return self
