"""Checks of the Triton kernels, which test_triton_kernels.py runs in a separate process.

Triton decides at import whether kernels are interpreted or compiled, so TRITON_INTERPRET has to be set per process:
with it these checks run on the CPU, without it on CUDA.
"""

import importlib.util
import os
from pathlib import Path

import comparisons
import pytest
import torch
import torch.nn.functional as F
from comparisons import assert_same, errors, kept_for_backward, poison, results, where

from fairseq_lambda.inspection import contributions, edited, zero
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions, LambdaLayer
from fairseq_lambda.ops import lambda_mix
from fairseq_lambda.ops.reference import lambda_mix_reference
from fairseq_lambda.ops.row_norm import torch_norm
from fairseq_lambda.ops.triton import kernels, mix, row_norm, self_check
from fairseq_lambda.ops.triton.mix import lambda_mix_triton
from fairseq_lambda.ops.triton.row_norm import row_norm_triton
from fairseq_lambda.ops.triton.tiles import BACKWARD, FORWARD, backward_tile

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
# length, dim_u, context, batch, heads, dim_k, dim_v
SIZES = [
    (1, 1, 1, 2, 3, 4, 5),
    (1, 2, 5, 1, 1, 16, 16),
    (2, 1, 5, 2, 3, 5, 7),
    (7, 2, 23, 2, 5, 3, 17),
    (33, 1, 23, 1, 12, 16, 64),
    (63, 1, 125, 1, 3, 4, 5),  # every pair of positions, several tiles of offsets
    (63, 2, 23, 2, 3, 17, 5),
    (130, 1, 23, 2, 3, 16, 70),  # two chunks of value channels
    (130, 2, 5, 1, 2, 4, 33),
    (130, 1, 1, 1, 2, 20, 64),
    (1030, 1, 5, 2, 1, 4, 5),  # two spans of the content lambda
]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch)


def draw(*shape, dtype=torch.float32, seed=0):
    return comparisons.draw(*shape, dtype=dtype, device=DEVICE, seed=seed)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_float32_equals_reference_with_every_gradient(size):
    for name, error in errors(lambda_mix_triton, draw(*size)).items():
        assert error < 2e-6, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "size", [(63, 1, 23, 2, 3, 16, 64), (70, 2, 47, 1, 2, 8, 20), (130, 1, 5, 1, 5, 16, 33)], ids=str
)
def test_half_precision_errs_at_most_twice_what_plain_torch_errs(size, dtype):
    tensors = draw(*size, dtype=dtype)
    plain = errors(lambda_mix_reference, tensors)
    for name, error in errors(lambda_mix_triton, tensors).items():
        assert error <= 2 * plain[name], name


def test_finite_differences():
    """The outputs are linear in each tensor, so central differences are exact except for rounding."""
    inputs, directions = draw(35, 2, 23, 1, 3, 4, 5), draw(35, 2, 23, 1, 3, 4, 5, seed=1)
    weights = [torch.randn(1, 35, 3, 5).to(DEVICE), torch.randn(1, 4, 5).to(DEVICE)]

    def loss(*tensors):
        return sum((o.double() * w).sum() for o, w in zip(lambda_mix_triton(*tensors), weights, strict=True))

    gradients = torch.autograd.grad(loss(*inputs), inputs)
    for i, (direction, gradient) in enumerate(zip(directions, gradients, strict=True)):
        up, down = (loss(*(t + step * direction if j == i else t for j, t in enumerate(inputs))) for step in (1, -1))
        torch.testing.assert_close((up - down) / 2, (gradient.double() * direction).sum(), rtol=1e-5, atol=1e-3)


def test_two_runs_give_the_same_bits():
    assert_same(lambda_mix_triton, lambda_mix_triton, draw(130, 1, 23, 2, 3, 4, 20, dtype=torch.bfloat16), 0, 0)


def test_any_strides():
    """Queries, keys and values are slices of one projection, values have u before v, the gradient is that of a sum."""
    q, k, v, e = (t.detach() for t in draw(40, 2, 5, 2, 3, 4, 6))
    packed = torch.cat([q.flatten(2), k.flatten(2), v.transpose(2, 3).flatten(2)], dim=2)
    q2, k2, v2 = packed.split([12, 8, 12], dim=2)
    strided = q2.unflatten(2, (3, 4)), k2.unflatten(2, (4, 2)), v2.unflatten(2, (2, 6)).transpose(2, 3), e
    assert not any(t.is_contiguous() for t in strided[:3])
    gradients = []
    for tensors in ((q, k, v, e), strided):
        tensors = [t.requires_grad_() for t in tensors]
        outputs = lambda_mix_triton(*tensors)
        gradients.append([*outputs, *torch.autograd.grad(sum(o.sum() for o in outputs), tensors)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_a_gradient(used):
    ours, expected = (results(f, draw(20, 1, 5, 1, 2, 4, 5), [used]) for f in (lambda_mix_triton, lambda_mix_reference))
    for got, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_keeps_nothing_but_inputs_and_content_lambda_for_the_backward_pass():
    tensors = draw(130, 1, 23, 1, 2, 4, 5)
    content_lambda, kept = kept_for_backward(lambda_mix_triton, tensors)
    assert kept == {where(t) for t in (*tensors, content_lambda)}


@pytest.mark.parametrize("used", [[0], [1], [0, 1]])
def test_second_derivatives_are_the_reference_s(used):
    def second(function):
        inputs = [t.detach().requires_grad_() for t in draw(9, 2, 5, 2, 2, 4, 5)]
        inputs[3] = torch.nn.functional.pad(inputs[3], (1, 1))[..., 1:-1]  # not contiguous, like a trimmed E
        outputs = function(*inputs)
        loss = sum(outputs[i].square().sum() for i in used)
        first = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first if g is not None), inputs, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, second, strict=True)]

    for got, wanted in zip(second(lambda_mix_triton), second(lambda_mix_reference), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("used", [0, 1])
def test_second_derivatives_of_the_queries_alone(used):
    """The content lambda then needs no gradient, and may be all that is used."""
    inputs = [t.detach().requires_grad_(i == 0) for i, t in enumerate(draw(9, 2, 5, 2, 2, 4, 5))]
    loss = lambda_mix_triton(*inputs)[used].square().sum()
    (first,) = torch.autograd.grad(loss, inputs[0], create_graph=True, allow_unused=True)
    if used == 1:
        assert first is None
    else:
        expected = lambda_mix_reference(*inputs)[0].square().sum()
        (expected,) = torch.autograd.grad(expected, inputs[0], create_graph=True)
        second = [torch.autograd.grad(g.square().sum(), inputs[0])[0] for g in (first, expected)]
        torch.testing.assert_close(first, expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(*second, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 9])
def test_a_context_beyond_the_sequence_is_cut(length):
    """To a width that other lengths share, so that some offsets reach beyond the sequence."""
    tensors = draw(length, 2, 95, 2, 3, 4, 5)
    for name, error in errors(lambda *t: lambda_mix(*t, backend="triton"), tensors).items():
        assert error < 2e-6, name


def test_compiled_gives_the_same():
    compiled = torch.compile(lambda *t: [2 * x for x in lambda_mix(*t, backend="triton")], backend="eager")
    assert_same(compiled, lambda *t: [2 * x for x in lambda_mix_triton(*t)], draw(20, 1, 5, 1, 2, 4, 5), 0, 0)


@pytest.mark.parametrize("length", [1, 45])
def test_layer_with_padding(length):
    """With this backend the layer returns the same as with the reference, and NaN in padding reaches no token."""
    layer = LambdaLayer(24, 3, dim_k=4, dim_u=2, local_context=23, backend="triton").to(DEVICE)
    x = torch.randn(2, length, 24).to(DEVICE)
    mask = torch.zeros(2, length, dtype=torch.bool, device=DEVICE)
    mask[0, length // 2 + 1 :] = True
    results = []
    for backend in ("triton", "reference"):
        layer.backend = backend
        y = layer(x, mask).masked_fill(mask[..., None], 0)
        layer.zero_grad()
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in layer.parameters())])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    layer.backend = "triton"
    poisoned = layer(x.masked_fill(mask[..., None], float("nan")), mask).masked_fill(mask[..., None], 0)
    torch.testing.assert_close(poisoned, results[0][0])


@torch.no_grad()
def test_a_layers_output_is_the_sum_of_its_tokens_contributions():
    """As in tests/inspection for the other backends; with the content lambda zeroed, only the position part is left."""
    options = LambdaBertOptions(
        vocab_size=40, layers=1, embed_dim=24, ffn_embed_dim=32, heads=3, dim_k=4, dim_u=2, local_context=23,
        backend="triton",
    )  # fmt: skip
    core, tokens = LambdaBert(options).to(DEVICE).eval(), torch.randint(4, 40, (30,), device=DEVICE)
    caught = []
    core.encoder.layers[0].mixing.register_forward_hook(lambda module, args, y: caught.append(y[0]))
    c = contributions(core, tokens, 0)
    torch.testing.assert_close(c.output(), caught[-1], atol=1e-5, rtol=0)
    caught.clear()
    with edited(core, zero):
        core.encoder.layers[0].mixing.register_forward_hook(lambda module, args, y: caught.append(y[0]))
        core(tokens[None])
    torch.testing.assert_close(c.output("position"), caught[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows,depth", [(1, 1), (700, 16), (4100, 5), (33, 128), (20, 70)])
def test_row_norm_equals_torchs_in_float64_with_every_gradient(rows, depth, dtype, centred):
    generator = torch.Generator().manual_seed(depth)
    x, gradient = (torch.randn(2, rows, depth, generator=generator).to(DEVICE, dtype) for _ in range(2))
    weight, bias = (torch.randn(depth, generator=generator).to(DEVICE) for _ in range(2))

    def ours(x, weight, bias):
        return row_norm_triton(x, weight, bias if centred else None, 1e-5, centred)

    def torchs(x, weight, bias):
        return F.layer_norm(x, (depth,), weight, bias, 1e-5) if centred else F.rms_norm(x, (depth,), weight, 1e-5)

    def run(function, kind):
        inputs = [t.to(kind or t.dtype).requires_grad_() for t in (x, weight, bias)]
        y = function(*inputs)
        used = inputs if centred else inputs[:2]
        return [y, *torch.autograd.grad(y, used, gradient.to(y.dtype))]

    found, again, expected = run(ours, None), run(ours, None), run(torchs, torch.float64)
    assert found[0].dtype == dtype and all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    for got, wanted in zip(found, expected, strict=True):
        # for rows of one number, results or gradients are nearly 0: there, errors are absolute
        error = (got.double() - wanted).norm() / wanted.norm().clamp(min=1)
        assert error < {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}[dtype]


@pytest.mark.parametrize("centred", [True, False])
def test_row_norm_takes_any_strides_and_has_a_second_derivative(centred):
    leaf, weight, bias = (torch.randn(*shape).to(DEVICE).requires_grad_() for shape in ((8, 6, 16), (16,), (16,)))
    bias = bias if centred else None

    def second(norm):
        y = norm(leaf.transpose(0, 1), weight, bias, 1e-5, centred)
        (first,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
        return [y, *torch.autograd.grad(first.square().sum(), [leaf, weight])]

    for got, wanted in zip(second(row_norm_triton), second(torch_norm), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_tiles_are_what_the_kernels_need():
    for table in (FORWARD, BACKWARD):
        for (size, width), tile in table.items():
            assert size in (2, 4) and width in (16, 32, 64)
            for number in (tile.block, tile.group, tile.channels, tile.warps):
                assert number & (number - 1) == 0
            assert tile.block >= 16 and tile.channels >= 16
    q, e = torch.zeros(1, 1, 1, 4, dtype=torch.bfloat16), torch.zeros(4, 1, 1)
    assert [backward_tile(q, e.expand(4, 1, r)).block for r in (1, 17, 23, 33, 255)] == [16, 32, 32, 64, 64]


@pytest.fixture
def unchecked(monkeypatch):
    """A process that has not checked its kernels yet."""
    monkeypatch.setattr(self_check, "_good", set())
    monkeypatch.setattr(self_check, "_failures", [])


def kind_of(dtype=torch.float32, dim_u=1, context=7):
    """Queries, values and position embedding, for the self check of their kernels."""
    queries, _, values, embedding = (t.detach() for t in draw(20, dim_u, context, 1, 2, 4, 20, dtype=dtype))
    return queries, values, embedding


@pytest.mark.parametrize("dtype,dim_u,context", [
    (torch.float32, 1, 23), (torch.bfloat16, 2, 23), (torch.float16, 1, 23), (torch.float32, 1, 70),
])  # fmt: skip
def test_the_self_check_passes_sound_kernels_and_touches_no_random_state(unchecked, dtype, dim_u, context):
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert self_check.why_wrong(*kind_of(dtype, dim_u, context)) is None
    assert len(self_check._good) == 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype,kernel,sound,broken,wrong", [
    # a rotation that is off by one
    (torch.bfloat16, "forward_kernel", "right = (j[None, :] - i[:, None])", "right = (j[None, :] - i[:, None] + 1)",
     {"y"}),
    # the far half of the values is read one position too early
    (torch.float16, "backward_kernel", "far_m = m + BLOCK\n", "far_m = m + BLOCK - 1\n",
     {"grad queries", "grad position_embedding"}),
    # a sum without the last position
    (torch.float32, "content_kernel", "inside = first + m < length", "inside = first + m < length - 1",
     {"y", "content_lambda", "grad queries"}),
])  # fmt: skip
def test_the_self_check_finds_a_broken_kernel(unchecked, monkeypatch, tmp_path, dtype, kernel, sound, broken, wrong):
    source = Path(kernels.__file__).read_text()
    assert sound in source
    path = tmp_path / "broken_kernels.py"
    path.write_text(source.replace(sound, broken))
    spec = importlib.util.spec_from_file_location("broken_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(mix, kernel, getattr(module, kernel))

    reason = self_check.why_wrong(*kind_of(dtype))
    kind = f"{str(dtype)[6:]}, heads=2 k=4 v=20 u=1 r=7"
    assert reason.startswith(f"its kernels differ from 'banded' for {kind} (largest error")
    allowed, numbers = reason.removesuffix(")").split(" allowed: ")
    allowed = float(allowed.split()[-1])
    errors = {name.rsplit(" ", 1)[0]: float(name.rsplit(" ", 1)[1]) for name in numbers.split(", ")}
    assert {name for name, error in errors.items() if not error <= allowed} == wrong
    with pytest.raises(ValueError, match="backend=triton: its kernels differ from 'banded' for"):
        lambda_mix(*draw(20, 1, 7, 1, 2, 4, 20, dtype=dtype), backend="triton")


@pytest.mark.parametrize("depth,dtype", [(16, torch.bfloat16), (5, torch.float32)])
def test_the_self_check_compares_the_norm_with_torchs(unchecked, monkeypatch, depth, dtype):
    x, weight = torch.randn(7, depth, device=DEVICE).to(dtype), torch.ones(depth, device=DEVICE)
    assert self_check.why_norm_wrong(x, weight, weight, True) is None
    assert self_check.why_norm_wrong(x, weight, None, False) is None
    assert len(self_check._good) == 2

    class Broken:
        """Adds the gradient of the weight of the first program only."""

        def __getitem__(self, grid):
            def launch(*tensors, **constants):
                row_norm_kernel[grid](*tensors, **constants)
                tensors[4][1:] = 0

            return launch

    row_norm_kernel = row_norm.norm_backward_kernel
    monkeypatch.setattr(self_check, "_good", set())
    monkeypatch.setattr(row_norm, "norm_backward_kernel", Broken())
    reason = self_check.why_norm_wrong(x, weight, weight, True)
    assert reason.startswith(f"its kernels differ from torch's for {str(dtype)[6:]}, layer norm of {depth} (largest")
    assert self_check.why_wrong(*kind_of()) == reason


def test_the_self_check_reports_a_compiler_that_fails(unchecked, monkeypatch):
    def compile_kernel(grid):
        raise RuntimeError("PassManager::run failed\nat line 7")

    monkeypatch.setattr(mix, "backward_kernel", type("Kernel", (), {"__getitem__": staticmethod(compile_kernel)})())
    reason = self_check.why_wrong(*kind_of())
    expected = "its kernels fail for float32, heads=2 k=4 v=20 u=1 r=7 (RuntimeError: PassManager::run failed)"
    assert reason == expected and self_check.why_wrong(*kind_of(context=5)) == expected
