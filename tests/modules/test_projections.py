"""One product in place of several: the same outputs and gradients, and only where nothing else depends on the calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from fairseq_lambda.modules import projections
from fairseq_lambda.modules.projections import project


def layers(dtype=torch.float64):
    torch.manual_seed(0)
    return [nn.Linear(5, width, bias=False, dtype=dtype) for width in (3, 1, 7)]


@pytest.fixture
def products(monkeypatch):
    """Count products with joined weights."""
    seen = []

    def linear(x, weight, *bias):
        seen.append(weight.shape[0])
        return F.linear(x, weight, *bias)

    monkeypatch.setattr(projections, "F", type("F", (), {"linear": staticmethod(linear)}))
    return seen


def test_outputs_and_gradients_are_those_of_the_layers(products):
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    first, second, third = layers()
    outputs = project(x, first, None, second, third)
    expected = [first(x), None, second(x), third(x)]
    assert outputs[1] is None and products == [11]
    inputs = [x, *(layer.weight for layer in (first, second, third))]
    found = torch.autograd.grad(sum(o.sin().sum() for o in outputs if o is not None), inputs)
    wanted = torch.autograd.grad(sum(o.sin().sum() for o in expected if o is not None), inputs)
    for a, b in zip((*outputs, *found), (*expected, *wanted), strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_layers_stay_without_a_gradient(products):
    frozen, other, _ = layers()
    frozen.requires_grad_(False)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    sum(o.sum() for o in project(x, frozen, other)).backward()
    assert products == [4] and frozen.weight.grad is None and other.weight.grad is not None


class Adapted(nn.Linear):
    """As adapters do it: a class of its own, with a weight that is not all that it applies."""

    def forward(self, x):
        return super().forward(x) + 1


def adapted(layer):
    layer.__class__ = Adapted


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: output + 1)


def parametrized(layer):
    parametrize.register_parametrization(layer, "weight", nn.Identity())


@pytest.mark.parametrize("change", [adapted, hooked, parametrized])
def test_layers_that_do_more_are_called(change, products):
    first, second, _ = layers()
    change(second)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    expected = second(x)
    torch.testing.assert_close(project(x, first, second)[1], expected)
    assert not products


def test_without_gradients_the_layers_are_called(products):
    x = torch.randn(2, 5, dtype=torch.float64)
    project(x, *layers())
    with torch.no_grad():
        project(x.requires_grad_(), *layers())
    assert not products
