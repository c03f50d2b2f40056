"""The Muon optimizer: its updates are near-orthogonal, reduce a loss, and resume from a saved state."""

from __future__ import annotations

import copy

import pytest
import torch

from deploy.demo_model.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 32, 288), (2, 96, 32), (1, 16, 16)])
def test_an_update_keeps_singular_vectors_and_equalizes_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    gradients = torch.randn(shape) * torch.logspace(-1, 1, shape[2])
    moves = orthogonal(gradients)
    left, _, right = torch.linalg.svd(gradients, full_matrices=False)
    nearest = left @ right
    assert torch.linalg.svdvals(moves).amax() < 1.3
    for move, best in zip(moves, nearest, strict=True):
        assert torch.nn.functional.cosine_similarity(move.flatten(), best.flatten(), dim=0) > 0.9


def test_matrices_and_the_others_are_both_trained() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.SiLU(), torch.nn.Conv2d(16, 2, 3))
    inputs, right = torch.randn(64, 3, 8, 8), torch.randn(64, 2, 4, 4)
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = Muon(matrices, others)
    losses = []
    for _ in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        loss = (network(inputs) - right).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_training_goes_on_where_it_was_saved() -> None:
    def run(parameter: torch.nn.Parameter, optimizer: Muon, steps: range) -> None:
        for step in steps:
            parameter.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))
            optimizer.param_groups[1]["lr"] = 0.01
            optimizer.step()

    whole = torch.nn.Parameter(torch.eye(16))
    first = Muon([whole], [torch.nn.Parameter(torch.zeros(1))])
    run(whole, first, range(3))
    saved, half = copy.deepcopy(first.state_dict()), torch.nn.Parameter(whole.detach().clone())
    run(whole, first, range(3, 6))
    second = Muon([half], [torch.nn.Parameter(torch.zeros(1))])
    second.load_state_dict(saved)
    run(half, second, range(3, 6))
    assert torch.equal(half, whole)
