"""Muon against PyTorch's own, and its state through a checkpoint."""

import copy
from pathlib import Path

import torch
from torch.nn import Parameter
from transformers import AutoModelForSequenceClassification

from stages.training.muon import BETAS, Muon, choose_optimizer, orthogonalize

SHAPES = ((8, 24), (24, 8), (16, 16), (8, 24))
RATES, DECAY = (0.02, 0.003), 0.1


def make_parameters() -> tuple[list[Parameter], list[Parameter]]:
    """(matrices, others), always the same."""
    generator = torch.Generator().manual_seed(0)
    matrices = [Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    return matrices, [Parameter(torch.randn(shape, generator=generator)) for shape in ((40, 8), (8,))]


def make_muon(matrices: list[Parameter], others: list[Parameter]) -> Muon:
    return Muon(matrices, others, RATES, DECAY)


def test_matrices_are_those_between_embeddings_and_heads(micro_base: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(micro_base, num_labels=1)
    optimizer = choose_optimizer(model, RATES)
    assert optimizer is not None
    matrices, others = ({id(value) for value in group["params"]} for group in optimizer.param_groups)
    names = {name: id(value) for name, value in model.named_parameters()}
    assert {name for name, number in names.items() if number in matrices} == {
        f"model.layers.0.{part}_proj.weight"
        for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
    }
    assert matrices | others == set(names.values())


def test_without_a_rate_for_matrices_the_optimiser_is_left_to_the_trainer(micro_base: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(micro_base, num_labels=1)
    assert choose_optimizer(model, (0.0, 1e-3)) is None


def train(optimizer: torch.optim.Optimizer, parameters: list[Parameter], seed: int) -> None:
    """Three steps along gradients that the seed alone decides."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_orthogonalised_matrices_keep_their_directions_and_lose_their_scales() -> None:
    matrices = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(1))
    for matrix, turned in zip(matrices, orthogonalize(matrices), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        scales = left.T @ turned @ right.T
        assert torch.allclose(scales, scales.diag().diag(), atol=1e-4)
        assert scales.diag().min() > 0.6 and scales.diag().max() < 1.3


def test_matrices_move_as_with_the_muon_of_pytorch() -> None:
    (start, spare), (own, others), (peers, _) = make_parameters(), make_parameters(), make_parameters()
    train(make_muon(own, others), [*own, *others], seed=2)
    train(torch.optim.Muon(peers, lr=RATES[0], weight_decay=DECAY), [*peers, *spare], seed=2)
    for first, mine, peer in zip(start, own, peers, strict=True):
        assert (mine - peer).norm() < 0.02 * (peer - first).norm()


def test_other_parameters_move_as_with_adamw() -> None:
    (matrices, others), (_, peers) = make_parameters(), make_parameters()
    for parameter in matrices:
        parameter.grad = torch.ones_like(parameter)
    train(make_muon(matrices, others), others, seed=3)
    train(torch.optim.AdamW(peers, lr=RATES[1], betas=BETAS, weight_decay=DECAY), peers, seed=3)
    for mine, peer in zip(others, peers, strict=True):
        assert torch.allclose(mine, peer, atol=1e-6)


def test_training_goes_on_from_a_saved_state_as_if_unbroken() -> None:
    matrices, others = make_parameters()
    unbroken = make_muon(matrices, others)
    train(unbroken, matrices + others, seed=4)
    saved = copy.deepcopy(unbroken.state_dict())
    weights = [parameter.detach().clone() for parameter in matrices + others]
    again, rest = make_parameters()
    for parameter, values in zip(again + rest, weights, strict=True):
        parameter.data.copy_(values)
    resumed = make_muon(again, rest)
    resumed.load_state_dict(saved)
    train(unbroken, matrices + others, seed=5)
    train(resumed, again + rest, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(matrices + others, again + rest, strict=True))


def test_a_scheduler_moves_both_learning_rates() -> None:
    matrices, others = make_parameters()
    optimizer = make_muon(matrices, others)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    train(optimizer, matrices + others, seed=6)
    scheduler.step()
    before = [parameter.detach().clone() for parameter in matrices + others]
    train(optimizer, matrices + others, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(matrices + others, before, strict=True))
