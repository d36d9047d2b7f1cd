"""A content lambda changed by a hook is changed exactly: against loops over the definition, for every backend."""

import pytest
import torch
from inspection_cores import ids, make_core

from fairseq_lambda.inspection import (
    edited,
    hidden_from,
    leave_one_out,
    mask_distribution,
    reader,
    replaced_by,
    swap_content,
    without,
    zero,
    zero_content,
)
from fairseq_lambda.inspection.reader import Reader
from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.modules.lambda_layer import NORMS

MASK = 59


def masked(length=15, at=(4, 9), seed=0):
    found = ids(length, seed).clamp(max=MASK - 1)
    found[list(at)] = MASK
    return found


def reads_of(core):
    return Reader(core, core.lm_head, mask_index=MASK)


def by_definition(layer: LambdaLayer, x, content_out, position_out):
    """y (n, C) in loops over tokens, leaving those in ``content_out`` and ``position_out`` out of that term."""
    length, heads, dim_v = x.shape[1], layer.heads, layer.dim_v
    (q,), _, (values,), offsets = layer.projections(x)
    logits = layer.k_proj(x)[0].unflatten(-1, (layer.dim_k, layer.dim_u)) if layer.k_proj is not None else None
    reach, kept = offsets.shape[-1] // 2, [m for m in range(length) if m not in content_out]
    content = torch.zeros(layer.dim_k, dim_v, dtype=x.dtype)
    if logits is not None and kept:
        keys = torch.stack([logits[m] for m in kept]).softmax(0)
        for weight, m in zip(keys, kept, strict=True):
            content += weight @ values[m].T
    y = torch.zeros(length, heads, dim_v, dtype=x.dtype)
    for n in range(length):
        position = torch.zeros_like(content)
        for m in range(length):
            if abs(m - n) <= reach and m not in position_out:
                position += offsets[:, :, m - n + reach] @ values[m].T
        y[n] = q[n] @ (content + position)
    gate = layer.gate(x)
    return y.flatten(1) if gate is None else y.flatten(1) * gate[0]


@pytest.mark.parametrize("backend", ["reference", "banded", "fourier"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dim_u,context,gate", [(1, 5, "silu"), (3, 5, "none"), (2, 0, "silu")])
@torch.no_grad()
def test_taking_a_token_out_is_the_definition_without_it(backend, norm, dim_u, context, gate):
    core = make_core(backend=backend, norm=norm, dim_u=dim_u, local_context=context, gate=gate).double().eval()
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    hidden = torch.zeros(1, 9, dtype=torch.bool)
    hidden[0, 3] = True
    layer = core.encoder.layers[1].mixing
    with edited(core, without(hidden)):
        torch.testing.assert_close(layer(x)[0], by_definition(layer, x, {3}, ()))
        y, content_lambda = layer(x, return_lambda=True)
        torch.testing.assert_close(y[0], by_definition(layer, x, {3}, ()))
    with hidden_from(core, hidden):
        torch.testing.assert_close(layer(x)[0], by_definition(layer, x, {3}, {3}))
        torch.testing.assert_close(layer(x, return_lambda=True)[1], content_lambda)
    with edited(core, zero, layers=[1]):
        torch.testing.assert_close(layer(x)[0], by_definition(layer, x, set(range(9)), ()))
    torch.testing.assert_close(layer(x)[0], by_definition(layer, x, (), ()))  # afterwards all is as before


def test_taking_the_only_token_out_leaves_zero():
    core = make_core().eval()
    tokens = torch.tensor([MASK])
    change = leave_one_out(reads_of(core), tokens)
    torch.testing.assert_close(change.after[0], zero_content(reads_of(core), tokens).after)


def test_a_token_out_beside_padding():
    """In a batch with padding, the shorter text gives the same as alone."""
    core = make_core().eval()
    short, long = masked(9, (4,)), masked(15, (4,))
    tokens, padding = reads_of(core).padded([short, long])
    hidden = torch.zeros_like(tokens, dtype=torch.bool)
    hidden[:, 2] = True
    with torch.no_grad(), edited(core, without(hidden)):
        both = core(tokens, padding).features
    with torch.no_grad(), edited(core, without(hidden[:1, :9])):
        torch.testing.assert_close(both[0, :9], core(short[None]).features[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("terms", ["content", "both"])
@pytest.mark.parametrize("layers", [None, [1]])
def test_leave_one_out_is_a_token_at_a_time(terms, layers):
    reads, tokens = reads_of(make_core()), masked()
    change = leave_one_out(reads, tokens, layers, terms)
    assert change.after.shape == (15, 2, 60) and change.divergence.shape == (15, 2)
    torch.testing.assert_close(change.before, mask_distribution(reads, tokens))
    for token in (0, 4, 7):
        hidden = torch.zeros(1, 15, dtype=torch.bool)
        hidden[0, token] = True
        change_one = (
            edited(reads, without(hidden), layers) if terms == "content" else hidden_from(reads, hidden, layers)
        )
        with change_one:
            torch.testing.assert_close(change.after[token], mask_distribution(reads, tokens), atol=1e-6, rtol=0)
    assert change.divergence.min() >= 0 and change.divergence[7].max() > 0


def test_swapping_with_itself_changes_nothing_and_with_another_text_what_it_should():
    core = make_core()
    reads, one, two = reads_of(core), masked(), masked(11, (3,), seed=1)
    same, _ = swap_content(reads, one, one)
    torch.testing.assert_close(same.after, same.before)
    assert same.divergence.max() < 1e-5
    first, second = swap_content(reads, one, two, layers=[0])
    core.eval()
    with torch.no_grad():
        other = core(two[None], return_lambdas=True).lambdas
        with edited(core, replaced_by(other), [0]):
            torch.testing.assert_close(core(one[None], return_lambdas=True).lambdas[0], other[0])
            torch.testing.assert_close(mask_distribution(reads, one), first.after)
    assert first.divergence.min() > 0 and first.after.shape == (2, 60) and second.after.shape == (1, 60)
    assert swap_content(reads, one, ids(11))[1] is None


def test_zero_is_the_model_without_the_term():
    """A model with position lambdas alone has nothing to zero; with both terms, zeroing gives that model."""
    torch.manual_seed(0)
    both = make_core()
    position = make_core(terms="position")
    position.load_state_dict({name: t for name, t in both.state_dict().items() if "k_proj" not in name})
    change = zero_content(reads_of(both), masked())
    torch.testing.assert_close(change.after, mask_distribution(reads_of(position), masked()))
    assert change.divergence.min() > 0
    unchanged = zero_content(reads_of(position), masked())
    assert torch.equal(unchanged.before, unchanged.after)


def test_hybrids():
    reads, tokens = reads_of(make_core(lambda_layers="0,2", attention_rotary=True)), masked()
    assert zero_content(reads, tokens).divergence.min() > 0
    assert leave_one_out(reads, tokens, terms="both").after.shape == (15, 2, 60)
    only_softmax = leave_one_out(reads, tokens, layers=[1], terms="both")
    assert only_softmax.divergence[7].min() > 0
    with pytest.raises(ValueError, match=r"layers=\[1\]: have no content lambda; choose from \[0, 2\]"):
        zero_content(reads, tokens, layers=[1, 2])


def test_top_and_errors():
    reads = reads_of(make_core())
    rows = zero_content(reads, masked()).top(3)
    assert len(rows) == 2 and 3 <= len(rows[0]) <= 6
    symbol, before, after = rows[0][0]
    assert symbol.isdigit() and 0 < before < 1 and 0 < after < 1
    with pytest.raises(ValueError, match="no <mask> in the text"):
        leave_one_out(reads, ids())
    with pytest.raises(ValueError, match="terms=position: choose one of content, both"):
        leave_one_out(reads, masked(), terms="position")
    with pytest.raises(ValueError, match="top works on one edit"):
        leave_one_out(reads, masked()).top()
    with pytest.raises(ValueError, match="no masked-LM head"):
        mask_distribution(Reader(reads.core, None, mask_index=MASK), masked())
    assert reader(reads) is reads
