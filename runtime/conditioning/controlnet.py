"""ControlNets (arXiv 2302.05543): the residuals of each row, as diffusers' ControlNet pipelines compute them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch

from runtime.conditioning.active_steps import acts_in
from runtime.conditioning.prompt import Prompt
from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.window import Window

Residuals = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class ControlNet:
    """One network of a request.

    condition: [3, H, W] in pixels, in [0, 1]. mask: [H, W] in [0, 1], which multiplies the residuals; None: it acts
    everywhere. `start` and `end`: the part of the steps, from 0 to 1, in which it acts. `pooled`: it was trained on one
    mean of each residual, with guess mode (`global_pool_conditions`), and gives the means [C, 1, 1] alone; these are
    the sizes (h, w) of the residuals. None: it does not pool. `tokens` [branches, T, D]: image tokens that the network
    takes in place of the text (InstantID, arXiv 2401.07519); None: it takes the text.
    """

    bound: Bound
    condition: torch.Tensor
    mask: torch.Tensor | None = None
    conditioning_scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    pooled: Sequence[tuple[int, int]] | None = None
    tokens: torch.Tensor | None = None

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in step `step`, from 0, of `steps`."""
        return acts_in(step, steps, self.start, self.end)

    def crop(self, window: Window, scale: int) -> ControlNet:
        """The network with this part of its condition and mask, `scale` pixels a latent. It has the same binding."""
        mask = None if self.mask is None else window.crop(self.mask, scale)
        return replace(self, condition=window.crop(self.condition, scale), mask=mask)


class ControlNets:
    """All ControlNets of a request. Their residuals add up."""

    def __init__(self, networks: Sequence[ControlNet], prompt: Prompt, *, guess_mode: bool) -> None:
        """`guess_mode`: the networks get only the prompt's rows, and residuals of finer levels have smaller scales.

        As in diffusers, a first network that pools turns it on for all.
        """
        self._networks, self._prompt = networks, prompt
        self._guess_mode = guess_mode or any(network.pooled is not None for network in networks[:1])

    @property
    def rows_per_latent(self) -> int:
        """How many rows of a latent ask a network."""
        return 1 if self._guess_mode else self._prompt.branches

    def residuals(
        self, scaled: torch.Tensor, t: torch.Tensor, step: int, steps: int
    ) -> Generator[list[Ask], list[Outputs], list[Residuals | None]]:
        """The residuals of each row: each latent of `scaled` [N, 4, h, w] in each branch. None: the row has none.

        One network at a time: the residuals of a row are held once for the sum, and once for the last network.
        """
        branches = self._prompt.branches
        rows = [(latent, branch) for latent in scaled for branch in range(branches)]
        asked = [row for row, (_, branch) in enumerate(rows) if not self._guess_mode or branch == branches - 1]
        found: list[Residuals | None] = [None] * len(rows)
        for network in self._networks:
            if network.acts(step, steps):
                outputs = yield [self._ask(network, *rows[row], t) for row in asked]
                for row, output in zip(asked, outputs, strict=True):
                    found[row] = _add(found[row], self._scaled(network, output))
                del outputs, output  # before the next network's are there
        return found

    def _ask(self, network: ControlNet, latent: torch.Tensor, branch: int, t: torch.Tensor) -> Ask:
        fields = {"latent": latent, "t": t.float(), "condition": network.condition, **self._prompt.fields(branch)}
        if network.tokens is not None:
            fields["text"] = network.tokens[branch]
        return Ask(network.bound, fields)

    def _scaled(self, network: ControlNet, output: Outputs) -> Residuals:
        residuals = output["residuals"]
        assert isinstance(residuals, tuple)
        scales = [network.conditioning_scale] * len(residuals)
        if self._guess_mode and network.pooled is None:
            # diffusers' scales of guess mode, from 0.1 to 1.
            scales = (torch.logspace(-1, 0, len(residuals)) * network.conditioning_scale).tolist()
        scaled = [_times(residual, scale) for residual, scale in zip(residuals, scales, strict=True)]
        if network.mask is None:
            return tuple(scaled)
        sizes: Sequence[Sequence[int]] = network.pooled or [residual.shape[-2:] for residual in residuals]
        return tuple(_masked(residual, network.mask, size) for residual, size in zip(scaled, sizes, strict=True))


def _times(residual: torch.Tensor, scale: float) -> torch.Tensor:
    # The default scale needs no copy of the residuals, which are 27 MB for a row of SD 1.5 at 512 px.
    return residual if scale == 1.0 else residual * scale


def _masked(residual: torch.Tensor, mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The residual [C, h, w] times the mask at its size, each value of which is the mean of the area that it covers.

    A mean [C, 1, 1] becomes a residual of this size: it does not act where the mask is 0.
    """
    small = torch.nn.functional.interpolate(mask[None, None], size=tuple(size), mode="area")
    return residual * small[0].to(residual)


def _add(left: Residuals | None, right: Residuals) -> Residuals:
    return right if left is None else tuple(one + other for one, other in zip(left, right, strict=True))
