"""Packed documents: backends are compared with the reference on each document; groups; the softmax per document."""

import pytest
import torch
from comparisons import NAMES, draw, results

from fairseq_lambda.ops import documents as documents_module
from fairseq_lambda.ops import lambda_mix_documents
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.documents import Documents
from fairseq_lambda.ops.reference import lambda_mix_reference

LENGTHS, WIDTH = [[30, 1, 2, 25], [60], [9, 9, 9, 9, 9]], 60  # 2 and 15 positions of padding


def alone(*tensors, lengths=LENGTHS):
    """Apply the reference to each document; zero where padded."""
    queries, *others, embedding = tensors
    ys, lambdas = [], []
    for i, row in enumerate(lengths):
        at = 0
        for length in row:
            part = [t[i : i + 1, at : at + length] for t in (queries, *others)]
            y, content_lambda = lambda_mix_reference(*part, embedding)
            ys.append(y[0])
            lambdas.append(content_lambda[0])
            at += length
        ys.append(queries.new_zeros(WIDTH - at, queries.shape[2], others[1].shape[2]))
    return torch.cat(ys).view(len(lengths), WIDTH, *ys[0].shape[1:]), torch.stack(lambdas)


def case(dim_u, context, **options):
    """Return tensors for the packed batch, zero where padded, as from a layer."""
    queries, keys, values, embedding = (t.detach() for t in draw(WIDTH, dim_u, context, batch=3, **options))
    padded = Documents(LENGTHS, WIDTH).positions.eq(0)[..., None, None]
    return queries, keys.masked_fill(padded, 0), values.masked_fill(padded, 0), embedding


def real(documents, name, tensor):
    """Return the part of a result that counts: a layer masks the gradients of padded keys and values."""
    padded = documents.positions.eq(0)[..., None, None]
    return tensor.masked_fill(padded, 0) if name in ("keys", "values") else tensor


def compare(documents, names, packed, expected):
    for name, ours, theirs in zip(names, packed, expected, strict=True):
        ours, theirs = real(documents, name, ours), real(documents, name, theirs)
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("span", [None, 8, 50, 64, 1000])
@pytest.mark.parametrize("dim_u,context", [(1, 1), (2, 5), (1, 23), (3, 119)])
def test_banded_on_the_line_gives_each_document_what_it_has_alone(span, dim_u, context):
    documents = Documents(LENGTHS, WIDTH)

    def banded(*tensors):
        return lambda_mix_banded(*tensors, span=span, documents=documents)

    packed, expected = results(banded, case(dim_u, context)), results(alone, case(dim_u, context))
    compare(documents, NAMES, packed, expected)


@pytest.mark.parametrize("backend", ["auto", "banded", "reference", "fourier"])
@pytest.mark.parametrize("call", [0, 20, 10**6])
@pytest.mark.parametrize("dim_u,context", [(2, 5), (1, 119), (1, 601)])
def test_every_backend_gives_each_document_what_it_has_alone(backend, call, dim_u, context, monkeypatch):
    monkeypatch.setitem(documents_module.CALL_POSITIONS, "cpu", call)
    documents = Documents(LENGTHS, WIDTH)
    packed = results(lambda *tensors: [lambda_mix_documents(*tensors, documents, backend)], case(dim_u, context), [0])
    expected = results(lambda *tensors: alone(*tensors)[:1], case(dim_u, context), [0])
    compare(documents, [n for n in NAMES if n != "content_lambda"], packed, expected)


@pytest.mark.parametrize("backend", ["banded", "reference", "fourier"])
def test_gradients_of_a_document_beside_one_that_is_not_finite(backend):
    documents, tensors = Documents(LENGTHS, WIDTH), case(2, 9)
    broken = torch.zeros(3, WIDTH, dtype=torch.bool)
    broken[0, 31:33] = True  # the third document of the first row

    def gradients(queries):
        inputs = [t.requires_grad_() for t in (queries, *(t.clone() for t in tensors[1:]))]
        y = lambda_mix_documents(*inputs, documents, backend)
        return torch.autograd.grad(y, inputs[:3], torch.ones_like(y))

    clean = gradients(tensors[0].clone())
    found = gradients(tensors[0].masked_fill(broken[..., None, None], torch.nan))
    for name, before, after in zip(("queries", "keys", "values"), clean, found, strict=True):
        before, after = real(documents, name, before), real(documents, name, after)
        torch.testing.assert_close(after[~broken], before[~broken], atol=1e-10, rtol=0)
        assert after[broken].isnan().all() == (name != "queries")  # queries have no part in their own gradient


@pytest.mark.parametrize("backend", ["banded", "reference", "fourier"])
def test_what_is_not_finite_stays_in_its_channel(backend):
    documents, (queries, keys, values, embedding) = Documents(LENGTHS, WIDTH), case(2, 9)
    expected = lambda_mix_documents(queries, keys, values, embedding, documents)
    values[0, 32, 3, 1] = torch.nan  # in the third document of the first row
    y = lambda_mix_documents(queries, keys, values, embedding, documents, backend)
    broken = torch.zeros_like(y, dtype=torch.bool)
    broken[0, 31:33, :, 3] = True
    torch.testing.assert_close(y[~broken], expected[~broken], atol=1e-10, rtol=0)
    assert y[broken].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_around_the_backward_pass_changes_nothing(dtype):
    documents, found = Documents(LENGTHS, WIDTH), []
    for enabled in (False, True):
        tensors = [t.requires_grad_() for t in case(2, 9, dtype=dtype)]
        y = lambda_mix_documents(*tensors, documents)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(y, tensors, torch.ones_like(y)))
    assert all(torch.equal(outside, inside) for outside, inside in zip(*found, strict=True))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_tensors_that_do_not_fit_together_are_refused(backend):
    documents, (queries, keys, values, embedding) = Documents(LENGTHS, WIDTH), case(1, 5)
    with pytest.raises(ValueError, match="4 offsets; a centred context needs an odd number"):
        lambda_mix_documents(queries, keys, values, embedding[..., 1:], documents, backend)
    with pytest.raises(ValueError, match="do not fit together"):
        lambda_mix_documents(queries, keys[:, 1:], values, embedding, documents, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_the_line_it_errs_at_most_twice_what_plain_torch_errs(dtype):
    documents = Documents(LENGTHS, WIDTH)

    def line(*tensors):
        return lambda_mix_banded(*tensors, span=16, documents=documents)

    tensors = case(2, 23, dtype=dtype)
    expected = results(alone, [t.double() for t in tensors])
    plain = results(alone, tensors)
    for name, ours, theirs, exact in zip(NAMES, results(line, tensors), plain, expected, strict=True):
        ours, theirs, exact = (real(documents, name, t) for t in (ours, theirs, exact))
        if name != "content_lambda":  # in float32 here
            bound = 2 * (theirs.double() - exact).norm() + 1e-6 * exact.norm()
            assert (ours.double() - exact).norm() <= bound, name


def test_softmax_is_that_of_each_document_with_its_gradient():
    documents = Documents(LENGTHS, WIDTH)
    logits = (10 * torch.randn(3, WIDTH, 4, dtype=torch.double)).requires_grad_()
    result = documents.softmax(logits)
    for start, end in documents.bounds:
        torch.testing.assert_close(result.flatten(0, 1)[start:end], logits.flatten(0, 1)[start:end].softmax(0))
    assert not result[documents.positions.eq(0)].any()
    assert torch.autograd.gradcheck(documents.softmax, logits)


def test_a_gradient_of_the_gradient_goes_through_groups():
    documents = Documents(LENGTHS, WIDTH)
    x = torch.randn(3, WIDTH, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: documents.each(lambda x, mask: x.cumsum(1) ** 2, x), x)
