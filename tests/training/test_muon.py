"""Muon: what its steps do to singular values, and that it finds minima."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speakup.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (200, 48), (5, 32, 80)])
def test_an_orthogonalised_matrix_keeps_directions_and_has_singular_values_near_one(
    shape: tuple[int, ...],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ orthogonalised(matrices) @ right.mT
    sizes = inside.diagonal(dim1=-2, dim2=-1)
    assert float(sizes.min()) > 0.3 and float(sizes.max()) < 1.3
    beside = inside - torch.diag_embed(sizes)
    assert float(beside.abs().max()) < 0.1


def test_a_steps_size_does_not_depend_on_the_gradients() -> None:
    sizes = []
    for scale in (1e-6, 1.0, 1e4):
        weight = nn.Parameter(torch.zeros(40, 90))
        weight.grad = scale * torch.randn(40, 90, generator=torch.Generator().manual_seed(2))
        Muon([weight], [], lr=0.5).step()
        sizes.append(float(weight.detach().square().mean().sqrt()))
    # A fifth of the rate, within what five iterations leave.
    assert sizes == pytest.approx([0.1 * 40**0.5 / 40**0.5] * 3, rel=0.15)
    assert max(sizes) - min(sizes) < 1e-3


def test_each_matrix_of_a_stack_is_stepped_on_its_own() -> None:
    gradient = torch.randn(3, 20, 30, generator=torch.Generator().manual_seed(3))
    stack = nn.Parameter(torch.zeros(3, 20, 30))
    stack.grad = gradient * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    Muon([stack], [], lr=1.0).step()
    for index in range(3):
        alone = nn.Parameter(torch.zeros(20, 30))
        alone.grad = gradient[index]
        Muon([alone], [], lr=1.0).step()
        assert torch.allclose(stack[index], alone, atol=0.02)


def test_vectors_are_stepped_as_torchs_adamw_does() -> None:
    start = torch.linspace(-1.0, 1.0, 7)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([], [ours], lr=0.1, others_lr=0.5)
    two = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(5):
        for weight, optimiser in ((ours, one), (theirs, two)):
            optimiser.zero_grad()
            (weight.sin() * torch.arange(7)).sum().backward()
            optimiser.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_it_learns_a_matrix_whose_directions_matter_unequally() -> None:
    """Where one direction of the input is a hundred times weaker, it is learnt all the same."""
    random = torch.Generator().manual_seed(4)
    wanted = torch.randn(16, 16, generator=random)
    spread = torch.logspace(0.0, -2.0, 16)
    weight = nn.Parameter(torch.zeros(16, 16))
    optimiser = Muon([weight], [], lr=0.5)
    for step in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 0.5 * (1.0 - step / 300)
        inputs = torch.randn(64, 16, generator=random) * spread
        optimiser.zero_grad()
        ((weight - wanted) @ inputs.T).square().mean().backward()
        optimiser.step()
    assert float((weight.detach() - wanted).abs().max()) < 0.3


def test_weights_without_a_gradient_stay() -> None:
    still, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moved.grad = torch.eye(4)
    Muon([still, moved], [], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, torch.ones(4, 4))
