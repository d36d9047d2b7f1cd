"""Slots and position kernels are what the layer computes; in an array of many texts, each is the same as alone."""

import numpy as np
import pytest
import torch
from inspection_cores import ids, make_core

from fairseq_lambda.inspection import lambdas, position_kernels, slots


@pytest.mark.parametrize("options", [{}, {"dim_u": 3}, {"local_context": 0}, {"norm": "batch"}], ids=str)
def test_slots_sum_to_the_content_lambda(options):
    core = make_core(**options).eval()
    with torch.no_grad():
        found = core(ids()[None], return_lambdas=True).lambdas
    for layer in range(3):
        s = slots(core, ids(), layer)
        torch.testing.assert_close(s.content_lambda, found[layer][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(s.keys.sum(0), torch.ones(4, options.get("dim_u", 1)))
        assert s.evenness.min() > 0 and s.evenness.max() < 1 and s.layer == layer
        top = s.top(2, count=3)
        assert [share for _, share in top] == sorted(s.keys[:, 2, 0].tolist())[:-4:-1]


def test_even_slots_have_evenness_1():
    core = make_core()
    torch.nn.init.zeros_(core.encoder.layers[0].mixing.k_proj.weight)
    torch.testing.assert_close(slots(core, ids(), 0).evenness, torch.ones(4, 1))
    assert slots(core, torch.tensor([5]), 1).evenness.isfinite().all()


@pytest.mark.parametrize("context,kept", [(5, 2), (0, 22)])
def test_position_kernels_are_the_mean_of_the_position_weights(context, kept):
    core = make_core(local_context=context, dim_u=2)
    kernels = position_kernels(core, [ids(), ids(9, seed=1)])
    assert [k.layer for k in kernels] == [0, 1, 2] and kernels[0].offsets.tolist() == list(range(-kept, kept + 1))
    alone = position_kernels(core, [ids()])[1]
    scores = torch.einsum("nhk,kur->nhur", *_queries_and_table(core, 1))
    table = scores if context else scores[..., 39 - 22 : 39 + 23]
    torch.testing.assert_close(alone.mean, table.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.deviation, table.std(0, unbiased=False), atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.size, table.square().mean(0).sqrt(), atol=1e-5, rtol=0)
    assert alone.reach.shape == (2,) and alone.reach.min() > 0 and alone.reach.max() < kept


def _queries_and_table(core, layer):
    caught = []
    mixing = core.encoder.layers[layer].mixing
    hook = mixing.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    core.eval()
    with torch.no_grad():
        core(ids()[None])
        hook.remove()
        q, _, _, table = mixing.projections(caught[0])
    return q[0], table.detach()


def test_a_kernel_that_reads_one_neighbour():
    core = make_core()
    mixing = core.encoder.layers[0].mixing
    with torch.no_grad():
        mixing.position_embedding.zero_()
        mixing.position_embedding[0, 0, 1] = 1.0  # offset -1
        mixing.q_proj.weight.zero_()
        mixing.q_norm.weight.zero_()
        mixing.q_norm.bias.copy_(torch.tensor([2.0, 0, 0, 0]))
    kernel = position_kernels(core, [ids()])[0]
    assert kernel.mean[:, 0].tolist() == [[0, 2, 0, 0, 0]] * 2 and kernel.deviation.abs().max() < 1e-6
    assert kernel.reach.tolist() == [1, 1]


def test_a_local_context_is_whole_though_the_text_is_short():
    assert position_kernels(make_core(local_context=23), [ids(9)])[0].offsets.tolist() == list(range(-11, 12))
    assert position_kernels(make_core(local_context=0), [ids(9)])[0].offsets.tolist() == list(range(-8, 9))


def test_lambdas_of_many_texts_are_those_of_each(tmp_path):
    core = make_core(lambda_layers="0,2").eval()
    texts = [ids(2 + 7 * i % 19, seed=i) for i in range(30)]
    calls = []
    found = lambdas(core, texts, tmp_path / "lambdas.npy", max_tokens=64, progress=lambda *done: calls.append(done))
    assert isinstance(found, np.memmap) and found.shape == (30, 2, 4, 8) and found.dtype == np.float32
    with torch.no_grad():
        for text, row in zip(texts, found, strict=True):
            alone = core(text[None], return_lambdas=True).lambdas
            np.testing.assert_allclose(row, torch.cat([alone[0], alone[2]]), atol=1e-5)
    assert calls[-1] == (30, 30) and len(calls) > 5 and calls == sorted(calls)
    assert [p.name for p in tmp_path.iterdir()] == ["lambdas.npy"]
    assert np.array_equal(np.load(tmp_path / "lambdas.npy", mmap_mode="r"), found)


def test_what_cannot_be_read_is_said(tmp_path):
    core = make_core(lambda_layers="0,2")
    with pytest.raises(ValueError, match="layer=1: this layer has no content lambda"):
        slots(core, ids(), 1)
    with pytest.raises(ValueError, match="texts is empty"):
        position_kernels(core, [])
    with pytest.raises(ValueError, match=r"texts\[1\]: this model came without a vocabulary"):
        lambdas(core, [ids(), "text"], tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"texts\[1\] has 41 tokens, but the model has 40 positions: shorten it"):
        lambdas(make_core(local_context=0), [ids(), ids(41)], tmp_path / "x.npy")
    with pytest.raises(ValueError, match="no layer with a content lambda"):
        lambdas(make_core(terms="position"), [ids()], tmp_path / "x.npy")
    assert not any(tmp_path.iterdir())
