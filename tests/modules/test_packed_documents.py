"""Packed documents: outputs and gradients of each are the same as alone, whatever else is in its row."""

import pytest
import torch
from pages import Page

from fairseq_lambda.modules import Documents, LambdaBert, LambdaBertOptions
from fairseq_lambda.ops import documents as documents_module

# rows of 40: full ones, one with padding, one with a single document; documents of 1 token, of equal lengths, of a row
LENGTHS = [[7, 12, 1, 20], [12, 12, 3], [40], [5, 30]]
WIDTH = 40
SMALL = {
    "vocab_size": 30, "layers": 2, "embed_dim": 16, "ffn_embed_dim": 24, "heads": 2, "dim_k": 4, "local_context": 5,
    "max_positions": WIDTH,
}  # fmt: skip
MODELS = {
    "local": {},
    "depth 3": {"dim_u": 3, "norm": "rms"},
    "wide context": {"local_context": 35},
    "global": {"local_context": 0},
    "global, depth 2": {"local_context": 0, "dim_u": 2},
    "no gate": {"gate": "none", "norm": "none"},
    "reference": {"backend": "reference"},
    "fourier": {"backend": "fourier", "local_context": 0},
    "content": {"terms": "content"},
    "position": {"terms": "position"},
    "learned positions": {"absolute_positions": "learned"},
    "sinusoids": {"absolute_positions": "sinusoidal"},
    "softmax": {"lambda_layers": "none"},
    "rotary": {"lambda_layers": "none", "attention_rotary": True},
    "hybrid": {"lambda_layers": "0", "attention_rotary": True, "dim_u": 2},
    "recomputed": {"lambda_layers": "1", "attention_rotary": True, "checkpoint_activations": True},
    "post-norm": {"post_norm": True},
}


def model_of(name):
    torch.manual_seed(0)
    model = LambdaBert(LambdaBertOptions(**(SMALL | MODELS[name]))).double()
    for parameter in model.parameters():  # away from the initial values, where layers have little effect
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch():
    """Token ids, their padding mask, and a loss weight that differs at every position."""
    tokens = torch.randint(4, 30, (len(LENGTHS), WIDTH))
    mask = torch.arange(WIDTH) >= torch.tensor([sum(row) for row in LENGTHS])[:, None]
    return tokens.masked_fill(mask, 1), mask, torch.randn(*tokens.shape, 16, dtype=torch.double)


def gradients(model):
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("call", [0, 10, 10**6])  # each alone, a few groups, one group
@pytest.mark.parametrize("name", MODELS)
def test_each_document_gives_what_it_gives_alone(name, call, monkeypatch):
    monkeypatch.setitem(documents_module.CALL_POSITIONS, "cpu", call)
    model, (tokens, mask, weights) = model_of(name), batch()
    packed = model(tokens, mask, documents=Documents(LENGTHS, WIDTH)).features
    (packed * weights)[~mask].sum().backward()
    packed_gradients = gradients(model)

    alone = torch.zeros_like(packed)
    for i, row in enumerate(LENGTHS):
        for j, length in enumerate(row):
            part = slice(sum(row[:j]), sum(row[:j]) + length)
            alone[i, part] = model(tokens[i : i + 1, part]).features[0]
    (alone * weights)[~mask].sum().backward()
    torch.testing.assert_close(packed[~mask], alone[~mask], atol=1e-10, rtol=0)
    for (parameter, _), got, expected in zip(model.named_parameters(), packed_gradients, gradients(model), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-8, msg=lambda text, p=parameter: f"{p}: {text}")


@pytest.mark.parametrize("name", ["local", "global", "hybrid", "softmax"])
def test_nothing_of_a_neighbour_is_seen_not_even_nan(name):
    model, (tokens, mask, _) = model_of(name), batch()
    documents = Documents(LENGTHS, WIDTH)
    before = model(tokens, mask, documents=documents).features.detach()
    one = torch.zeros_like(mask)
    one[0, 7:19] = True  # the second document of the first row
    embed = model.embed
    model.embed = lambda *inputs: embed(*inputs).masked_fill(one[..., None], float("nan"))
    after = model(tokens, mask, documents=documents).features.detach()
    assert after[0, 7:19].isnan().all()
    assert torch.equal(before[~one & ~mask], after[~one & ~mask])


def test_without_documents_neighbours_are_seen():
    """Otherwise the tests above would prove nothing."""
    model, (tokens, mask, _) = model_of("local"), batch()
    apart, together = model(tokens, mask, documents=Documents(LENGTHS, WIDTH)), model(tokens, mask)
    different = (apart.features - together.features).abs().amax(-1) > 1e-6
    assert different[~mask].float().mean() > 0.5 and not different[2].any()  # a single document


def test_batch_norm_has_the_statistics_of_all_real_tokens(monkeypatch):
    torch.manual_seed(0)
    model = LambdaBert(LambdaBertOptions(**SMALL | {"norm": "batch", "layers": 1}))
    tokens, mask, _ = batch()
    model(tokens, mask, documents=Documents(LENGTHS, WIDTH))
    norm = model.encoder.layers[0].mixing.v_norm
    packed = norm.running_mean.clone()
    norm.running_mean.zero_()
    model(tokens, mask)
    torch.testing.assert_close(packed, norm.running_mean)  # in the first layer, whose inputs are the same


def test_groups_are_padded_by_less_than_a_call_costs(monkeypatch):
    monkeypatch.setitem(documents_module.CALL_POSITIONS, "cpu", 6)
    documents = Documents(LENGTHS, WIDTH)
    sizes = [(group.count, group.length, group.padding_mask is not None) for group in documents.groups]
    assert sizes == [(1, 40, False), (1, 30, False), (1, 20, False), (4, 12, True), (3, 5, True)]
    assert documents.longest == 40
    assert documents.positions[0].tolist() == [*range(1, 8), *range(1, 13), 1, *range(1, 21)]
    assert documents.positions[1].tolist() == [*range(1, 13), *range(1, 13), 1, 2, 3, *[0] * 13]


def test_pairs_have_the_segments_that_they_have_alone():
    """Two in a row, and a text that begins where another ends, with </s> on both sides."""
    model, eos = model_of("local"), 2
    pair, other, bare = [0, 5, eos, eos, 6, 7, eos], [0, 8, 9, eos, eos, 6, eos], [eos, 4, 5, eos]
    rows = [[pair, other], [bare, bare, pair]]
    tokens = torch.ones(2, 16, dtype=torch.long)
    for row, documents in zip(tokens, rows, strict=True):
        row[: sum(map(len, documents))] = torch.tensor(sum(documents, []))
    documents = Documents([[len(document) for document in row] for row in rows], 16)
    packed = model(tokens, tokens.eq(1), documents=documents).features.flatten(0, 1)
    for (start, end), document in zip(documents.bounds, sum(rows, []), strict=True):
        torch.testing.assert_close(packed[start:end], model(torch.tensor([document])).features[0])


@pytest.mark.parametrize("lengths,message", [
    ([[30, 11]], "documents of 30, 11 tokens do not fit into a row of 40"),
    ([[5, 0]], "documents of 5, 0 tokens: each needs at least one"),
    ([[-1, 5]], "documents of -1, 5 tokens: each needs at least one"),
])  # fmt: skip
def test_documents_that_do_not_fill_their_row_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        Documents(lengths, WIDTH)
    with pytest.raises(ValueError, match="needs a document"):
        Documents([[]], WIDTH)


@pytest.mark.parametrize("lengths,width", [(LENGTHS[:2], WIDTH), (LENGTHS, WIDTH + 1)])
@pytest.mark.parametrize("name", ["local", "global", "position", "softmax", "learned positions"])
def test_documents_of_another_batch_are_refused(name, lengths, width):
    model, (tokens, mask, _) = model_of(name), batch()
    with pytest.raises(ValueError, match=f"documents of {len(lengths)} rows, {width} .* a batch of 4 rows of 40"):
        model(tokens, mask, documents=Documents(lengths, width))
    layer, x = model.encoder.layers[0].mixing, torch.randn(4, WIDTH, 16, dtype=torch.double)
    with pytest.raises(ValueError, match=f"documents of {len(lengths)} rows, {width} .* a batch of 4 rows of 40"):
        layer(x, mask, documents=Documents(lengths, width))


@pytest.mark.parametrize("name", ["local", "softmax"])
def test_torch_func_is_refused(name):
    layer, x = model_of(name).encoder.layers[0].mixing, torch.randn(3, 4, WIDTH, 16, dtype=torch.double)
    with pytest.raises(ValueError, match="packed documents do not support torch.func: give each"):
        torch.func.vmap(lambda x: layer(x, documents=Documents(LENGTHS, WIDTH)))(x)


def test_content_lambdas_of_packed_documents_are_refused():
    model, (tokens, mask, _) = model_of("local"), batch()
    with pytest.raises(ValueError, match="packed documents: give each document its own row"):
        model(tokens, mask, return_lambdas=True, documents=Documents(LENGTHS, WIDTH))


def test_the_example_in_the_documentation_runs(tmp_path):
    scope = Page("docs/long-texts.md").python(tmp_path)
    assert scope["features"].shape == (2, 1000, 64)
