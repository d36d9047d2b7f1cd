"""torch.func on the model: per-sample gradients, as differential privacy needs them, and Jacobians."""

import pytest
import torch
from torch.func import functional_call, grad, hessian, jvp, vmap

from fairseq_lambda.modules import LambdaBert, LambdaBertOptions, LambdaLayer

SHAPE = {"vocab_size": 30, "layers": 2, "embed_dim": 16, "ffn_embed_dim": 24, "heads": 2, "dim_k": 4}
SHAPE |= {"local_context": 5, "max_positions": 20}


@pytest.mark.parametrize("options", [
    {"dim_u": 2, "norm": "rms"},
    {"backend": "reference", "absolute_positions": "learned"},
    {"local_context": 0, "absolute_positions": "sinusoidal"},
    {"lambda_layers": "1", "attention_rotary": True},
])  # fmt: skip
def test_gradients_of_each_sample_are_those_of_one_after_the_other(options):
    model = LambdaBert(LambdaBertOptions(**SHAPE | options)).double()
    tokens, padding_mask = torch.randint(3, 30, (3, 9)), torch.arange(9) >= torch.tensor([[9], [4], [7]])

    def loss(parameters, tokens, padding_mask):
        features = functional_call(model, parameters, (tokens[None], padding_mask[None])).features
        return features.masked_fill(padding_mask[None, :, None], 0).square().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    of_samples = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, tokens, padding_mask)
    for i in range(3):
        features = model(tokens[i : i + 1], padding_mask[i : i + 1]).features
        model.zero_grad(set_to_none=False)
        features[~padding_mask[i : i + 1]].square().sum().backward()
        for name, parameter in model.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(of_samples[name][i], expected, atol=1e-10, rtol=1e-10)


def test_products_with_a_jacobian_and_second_derivatives():
    layer, x = LambdaLayer(8, 2, dim_k=3, local_context=3).double(), torch.randn(1, 5, 8, dtype=torch.double)
    step = 1e-6
    y, change = jvp(layer, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(change, (layer(x + step) - layer(x - step)) / (2 * step), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(y, layer(x))

    def function(x):
        return layer(x).square().sum()

    torch.testing.assert_close(hessian(function)(x), torch.autograd.functional.hessian(function, x))


def test_transforms_inside_a_compiled_function():
    layer, x = LambdaLayer(8, 2, dim_k=3, local_context=3).requires_grad_(False), torch.randn(3, 2, 6, 8)

    def gradients(x):
        return vmap(grad(lambda x: layer(x).square().sum()))(x)

    compiled = torch.compile(gradients, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), gradients(x))


@pytest.mark.parametrize("backend", ["banded", "fourier"])
def test_backends_without_transforms_say_so(backend):
    layer = LambdaLayer(8, 2, dim_k=3, local_context=3, backend=backend)
    with pytest.raises(ValueError, match=f"backend={backend} .*torch.func: use backend=auto or backend=reference"):
        vmap(layer)(torch.randn(2, 1, 5, 8))
