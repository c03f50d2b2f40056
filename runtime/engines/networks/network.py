"""What a graph's network is."""

from __future__ import annotations

from torch import nn


class Network(nn.Module):
    """A graph's module. `weights` is the part of it whose parameter names are the canonical ones."""

    @property
    def weights(self) -> nn.Module:
        return self
