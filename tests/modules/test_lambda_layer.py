"""The layer's invariants: padding, shift, batch, scale, precision; and parity values if they are available."""

import os
from pathlib import Path

import pytest
import torch

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.modules.lambda_layer import NORMS

BACKENDS = ["reference", "banded"]


def make(norm="layer", backend="banded", context=5, width=16, heads=2, gate="none", **options):
    torch.manual_seed(0)
    options |= {"dim_k": 4, "local_context": context, "norm": norm, "backend": backend, "gate": gate}
    return LambdaLayer(width, heads, **options).double()


def parity_files():
    folder = Path(os.environ.get("PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))
    return sorted(folder.glob("*.npz"))


@pytest.mark.skipif(not parity_files(), reason="PARITY_DIR holds no reference values")
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_an_independent_implementation(backend):
    np = pytest.importorskip("numpy")
    for file in parity_files():
        data = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(file).items()}
        sizes = [int(data[k]) for k in ("heads", "dim_k", "dim_u", "local_context")]
        layer = LambdaLayer(data["x"].shape[-1], *sizes, norm="batch", gate="none", backend=backend).double().eval()
        names = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        state = {f"{n}_norm.{ours}": data[f"bn_{n}_{theirs}"] for n in "qv" for ours, theirs in names.items()}
        state |= {f"{n}_proj.weight": data[f"{n}_weight"] for n in "qkv"}
        layer.load_state_dict({**state, "position_embedding": data["rel_pos"]})
        y, content_lambda = layer(data["x"], return_lambda=True)
        torch.testing.assert_close(y, data["y"], atol=1e-9, rtol=0)
        torch.testing.assert_close(content_lambda, data["lambda_c"], atol=1e-9, rtol=0)


def by_definition(layer, x, padding_mask):
    """Process one text at a time, real tokens only: padding must not change the result."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        real = ~padding_mask[b]
        if real.any():
            out[b, real] = layer(x[b : b + 1, real])[0]
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", ["layer", "rms", "none"])
@pytest.mark.parametrize("context", [5, 0])
@pytest.mark.parametrize("dim_u", [1, 2])
def test_padding_never_leaks(norm, backend, context, dim_u):
    layer = make(norm, backend, context, dim_u=dim_u, max_positions=40)
    lengths = torch.tensor([9, 1, 12, 0])
    padding_mask = torch.arange(12) >= lengths[:, None]
    x = torch.randn(4, 12, 16, dtype=torch.float64)
    expected = by_definition(layer, x, padding_mask)
    for garbage in (0.0, 1e30, float("nan"), float("inf")):
        dirty = x.masked_fill(padding_mask[..., None], garbage).requires_grad_()
        y = layer(dirty, padding_mask)
        torch.testing.assert_close(y[~padding_mask], expected[~padding_mask], atol=1e-10, rtol=1e-10)
        if garbage == garbage and abs(garbage) < 1e31:
            y[~padding_mask].sum().backward()
            assert dirty.grad.isfinite().all()
            assert not dirty.grad[padding_mask].any()
    longer = torch.nn.functional.pad(x, (0, 0, 0, 8), value=7.0)
    more = torch.nn.functional.pad(padding_mask, (0, 8), value=True)
    y = layer(longer, more)[:, :12]
    torch.testing.assert_close(y[~padding_mask], expected[~padding_mask], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_of_padding_only_is_finite_and_has_no_content(norm):
    layer = make(norm)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    y, content_lambda = layer(x, torch.ones(2, 6, dtype=torch.bool), return_lambda=True)
    assert y.isfinite().all() and not content_lambda.any()


def test_batch_norm_statistics_are_of_real_tokens_only():
    layer = make("batch").train()
    x = torch.randn(3, 10, 16, dtype=torch.float64)
    padding_mask = torch.arange(10) >= torch.tensor([10, 4, 1])[:, None]
    layer(x.masked_fill(padding_mask[..., None], 1e6), padding_mask)
    q = layer.q_proj(x)[~padding_mask]
    torch.testing.assert_close(layer.q_norm.running_mean, 0.1 * q.mean(0))
    torch.testing.assert_close(layer.q_norm.running_var, 0.9 + 0.1 * q.var(0))
    plain = torch.nn.BatchNorm1d(q.shape[-1]).double()
    torch.testing.assert_close(layer.q_norm(q[None]), plain(q)[None])


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_entries_do_not_see_each_other(backend):
    layer = make(backend=backend)
    x = torch.randn(3, 11, 16, dtype=torch.float64)
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, atol=1e-12, rtol=0)


def test_offsets_are_relative_and_signed():
    """With only E[+1] set, each token reads the next token and nothing else."""
    layer = make("none", context=5, heads=1, width=4)
    torch.nn.init.zeros_(layer.position_embedding)
    with torch.no_grad():
        layer.position_embedding[:, :, 3] = 1.0
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    q, v = layer.q_proj(x), layer.v_proj(x)
    content = layer(x, return_lambda=True)[1]
    following = torch.cat([v[:, 1:], torch.zeros(1, 1, 4, dtype=torch.float64)], dim=1)
    expected = q @ content + q.sum(-1, keepdim=True) * following
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dim_u,context", [(1, 23), (4, 7), (1, 0)])
def test_output_variance_at_init_is_near_the_inputs(norm, dim_u, context):
    torch.manual_seed(1)
    layer = LambdaLayer(256, 4, dim_u=dim_u, local_context=context, max_positions=256, norm=norm, gate="none")
    y = layer(torch.randn(4, 256, 256))
    assert 0.4 < y.var().item() < 2.5


@pytest.mark.parametrize("padded", [False, True])
def test_the_two_terms_add_up(padded):
    """y is linear in its lambdas: layers with one term each and the same weights sum to the layer with both."""
    both = make("layer", dim_u=2)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    mask = torch.arange(9).expand(2, 9) > 6 if padded else None
    parts = {}
    for terms, missing in (("content", "position_embedding"), ("position", "k_proj.weight")):
        layer = make("layer", dim_u=2, terms=terms)
        assert both.state_dict().keys() - layer.state_dict().keys() == {missing}
        layer.load_state_dict({k: v for k, v in both.state_dict().items() if k != missing})
        parts[terms] = layer(x, mask, return_lambda=True)
        parts[terms][0].square().sum().backward()
        assert all(p.grad is not None for p in layer.parameters())  # DDP refuses weights without a gradient
    y, content_lambda = both(x, mask, return_lambda=True)
    torch.testing.assert_close(parts["content"][0] + parts["position"][0], y)
    torch.testing.assert_close(parts["content"][1], content_lambda)
    assert not parts["position"][1].any()


def test_the_gate_is_a_factor_of_the_output():
    """The output is silu(x Wg) times that of the layer without a gate; the content lambda does not depend on it."""
    gated, plain = make(gate="silu"), make()
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if k != "gate_proj.weight"})
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    (y, gated_lambda), (without, plain_lambda) = (layer(x, return_lambda=True) for layer in (gated, plain))
    gate = x @ gated.gate_proj.weight.T
    torch.testing.assert_close(y, without * gate / (1 + (-gate).exp()))
    torch.testing.assert_close(gated_lambda, plain_lambda)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj", "gate_proj"])
def test_projections_are_called(name):
    """Adapters, hooks, pruning and quantisation replace the projections or hook into their calls."""
    layer, x = make(gate="silu"), torch.randn(2, 9, 16, dtype=torch.float64)
    before, calls = layer(x), []
    handle = getattr(layer, name).register_forward_hook(
        lambda module, inputs, output: calls.append(1) or output * 2 + 1
    )
    assert not torch.allclose(layer(x), before) and calls == [1]
    handle.remove()
    projection = getattr(layer, name)
    adapter = torch.nn.Sequential(torch.nn.Linear(16, 2), torch.nn.Linear(2, projection.out_features)).double()
    adapted = lambda x: projection(x) + adapter(x)  # noqa: E731
    setattr(layer, name, type("Adapted", (torch.nn.Module,), {"forward": lambda self, x: adapted(x)})())
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (projection.weight, *adapter[0].parameters()))


def test_the_old_name_of_a_backend_is_read_as_the_new_one():
    assert make(backend="chunked").backend == "banded"


@pytest.mark.parametrize("options,message", [
    ({"local_context": 4}, "local_context=4: must be odd.*5"),
    ({"local_context": -3}, "local_context=-3"),
    ({"local_context": 0}, "max_positions=None: give the longest"),
    ({"local_context": 0, "max_positions": 7.5}, "max_positions=7.5: give the longest"),
    ({"dim_k": True}, "dim_k=True: must be a whole number"),
    ({"dim_u": 2.0}, "dim_u=2.0: must be a whole number"),
    ({"heads": 3}, "embed_dim=16 is not divisible by heads=3"),
    ({"local_context": None}, "local_context=None: must be odd"),
    ({"local_context": 5.0}, "local_context=5.0: must be odd"),
    *(({name: 0}, f"{name}=0") for name in ("dim_k", "dim_u")),
    *(({name: "other"}, f"{name}=other") for name in ("norm", "terms", "gate", "backend")),
])  # fmt: skip
def test_bad_options_raise_naming_argument_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        LambdaLayer(16, **{"heads": 2, **options})


def test_whole_numbers_may_be_those_of_numpy():
    numpy = pytest.importorskip("numpy")
    layer = LambdaLayer(16, numpy.int64(2), dim_k=numpy.int32(4), local_context=numpy.int64(5))
    assert layer(torch.randn(2, 9, 16)).shape == (2, 9, 16)


@pytest.mark.parametrize("shape", [(0, 5, 16), (0, 1, 16)])
@pytest.mark.parametrize("backend", [*BACKENDS, "fourier"])
def test_an_empty_batch_gives_empty_results_and_gradients_of_zero(backend, shape):
    layer, x = make(backend=backend, gate="silu"), torch.randn(shape, dtype=torch.double, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == shape == x.grad.shape and all(not p.grad.any() for p in layer.parameters())


def test_shapes_can_be_computed_on_the_meta_device():
    layer = LambdaLayer(16, 2).to("meta")
    assert layer(torch.empty(3, 9, 16, device="meta")).shape == (3, 9, 16)


@pytest.mark.parametrize("backend", [*BACKENDS, "fourier"])
def test_results_can_be_changed_in_place(backend):
    layer, x = make(backend=backend), torch.randn(2, 9, 16, dtype=torch.double)
    first, second = (torch.autograd.grad(y.sum(), layer.v_proj.weight)[0] for y in (3 * layer(x), layer(x).mul_(3)))
    torch.testing.assert_close(first, second)


def test_global_context_refuses_more_than_its_positions():
    with pytest.raises(ValueError, match="9 tokens exceeds the global context's max_positions=8"):
        make(context=0, max_positions=8)(torch.zeros(1, 9, 16, dtype=torch.float64))


def test_state_dict_names_and_shapes():
    shapes = {k: tuple(v.shape) for k, v in make("layer", dim_u=2, gate="silu").state_dict().items()}
    assert shapes == {
        "position_embedding": (4, 2, 5),
        "q_proj.weight": (8, 16),
        "k_proj.weight": (8, 16),
        "v_proj.weight": (16, 16),
        "q_norm.weight": (4,),
        "q_norm.bias": (4,),
        "v_norm.weight": (8,),
        "v_norm.bias": (8,),
        "gate_proj.weight": (16, 16),
    }
