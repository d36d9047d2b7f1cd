"""Contributions sum to what a forward hook records; maps and rollout are compared with loops."""

import itertools

import pytest
import torch
from inspection_cores import ids, make_core

from fairseq_lambda.inspection import (
    contributions,
    contributions_of_layers,
    norm_maps,
    reader,
    rollout,
    term_norms,
    to_bertviz,
)
from fairseq_lambda.modules.lambda_layer import NORMS


def caught(core, tokens):
    """Return what the layers' mixing returns, recorded by forward hooks, without gradients."""
    outputs, hooks = [], []
    for layer in core.encoder.layers:
        hooks.append(layer.mixing.register_forward_hook(lambda module, args, output: outputs.append(output[0])))
    core.eval()
    with torch.no_grad():
        core(tokens[None])
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("backend", ["reference", "banded", "fourier"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dim_u", [1, 3])
@pytest.mark.parametrize("context", [5, 0, 31])
def test_contributions_sum_to_the_output_that_a_hook_catches(backend, norm, dim_u, context):
    core = make_core(backend=backend, norm=norm, dim_u=dim_u, local_context=context)
    for layer, output in enumerate(caught(core, ids())):
        c = contributions(core, ids(), layer)
        assert c.content.shape == c.position.shape == (23, 2, 23, dim_u) and c.values.shape == (23, 8, dim_u)
        torch.testing.assert_close(c.output(), output, atol=1e-5, rtol=0)
        torch.testing.assert_close(c.output("content") + c.output("position"), output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [
    {"gate": "none"}, {"terms": "content"}, {"terms": "position"}, {"post_norm": True},
    {"lambda_layers": "0,2"}, {"lambda_layers": "none", "attention_rotary": True},
    {"lambda_layers": "1", "attention_rotary": True, "post_norm": True},
], ids=str)  # fmt: skip
def test_so_they_do_without_a_gate_with_one_term_and_in_hybrids(options):
    core = make_core(**options)
    outputs = caught(core, ids())
    for layer, (c, output) in enumerate(zip(contributions_of_layers(core, ids()), outputs, strict=True)):
        torch.testing.assert_close(c.output(), output, atol=1e-5, rtol=0)
        assert c.layer == layer and c.weights().shape == (23, 2, 23, 1)


def test_long_texts_too():
    """More rows than are summed at a time, and the rounding of many terms."""
    core = make_core()
    for layer, output in enumerate(caught(core, ids(300))):
        torch.testing.assert_close(contributions(core, ids(300), layer).output(), output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context,dim_u", [(5, 2), (0, 1)])
def test_parts_are_the_definition_in_loops(context, dim_u):
    core = make_core(dim_u=dim_u, local_context=context)
    c = contributions(core, ids(9), 0)
    mixing = core.encoder.layers[0].mixing
    core.eval()
    x = core.encoder.layers[0].mixing_layer_norm(core.embed(ids(9)[None]))
    (q,), (keys,), (values,), offsets = (t.detach() for t in mixing.projections(x))
    reach = offsets.shape[-1] // 2
    for n, h, m, u in itertools.product(range(9), range(2), range(9), range(dim_u)):
        content = sum(q[n, h, k] * keys[m, k, u] for k in range(4))
        position = 0.0
        if abs(m - n) <= reach:
            position = sum(q[n, h, k] * offsets[k, u, m - n + reach] for k in range(4))
        assert c.content[n, h, m, u].item() == pytest.approx(float(content), abs=1e-5)
        assert c.position[n, h, m, u].item() == pytest.approx(float(position), abs=1e-5)
    weights, gate = c.weights(), mixing.gate(x)[0].detach().unflatten(-1, (2, 8))
    vector = gate[4, 1] * sum(weights[4, 1, 7, u] * values[7, :, u] for u in range(dim_u))
    torch.testing.assert_close(c.vectors()[4, 7, 8:], vector, atol=1e-5, rtol=0)
    assert c.norms()[4, 1, 7].item() == pytest.approx(vector.norm().item(), abs=1e-5)


def test_a_softmax_layer_has_attention_and_nothing_else():
    core = make_core(lambda_layers="0,2")
    c = contributions(core, ids(), 1)
    torch.testing.assert_close(c.parts["attention"].sum(2), torch.ones(23, 2, 1))
    with pytest.raises(ValueError, match="layer 1 has no content part: choose one of attention"):
        c.content  # noqa: B018
    torch.testing.assert_close(c.head_vectors().sum(1), c.vectors())


@pytest.mark.parametrize("options", [{}, {"post_norm": True}, {"lambda_layers": "0,2"}], ids=str)
def test_rollout_is_the_product_of_maps_with_residual_and_norm(options):
    core = make_core(**options)
    found = rollout(core, ids(9))
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 9))
    core.eval()
    states = core(ids(9)[None], return_states=True).states
    total = torch.eye(9)
    for layer, c in enumerate(contributions_of_layers(core, ids(9))):
        vectors, block = c.vectors(), core.encoder.layers[layer]
        map_ = torch.zeros(9, 9)
        for n, m in itertools.product(range(9), range(9)):
            moved = vectors[n, m] + (states[layer][0, n].detach() if n == m else 0)
            if block.post_norm:  # linear given the deviation of the sum, which this takes from the layer's own norm
                norm = block.mixing_layer_norm
                whole = (states[layer][0, n].detach() + c.output()[n])[None]
                deviation = (whole - whole.mean()).norm() / (norm(whole).detach() - norm.bias).div(norm.weight).norm()
                moved = (moved - moved.mean()) / deviation * norm.weight.detach()
            map_[n, m] = moved.norm()
        total = (map_ / map_.sum(-1, keepdim=True)) @ total
        torch.testing.assert_close(found[layer], total, atol=1e-4, rtol=0)


def test_maps_say_nothing_where_a_layer_adds_nothing():
    core = make_core()
    for layer in core.encoder.layers:
        torch.nn.init.zeros_(layer.mixing.v_norm.weight)
        torch.nn.init.zeros_(layer.mixing.v_norm.bias)
    assert norm_maps(core, ids()).abs().max() == 0
    torch.testing.assert_close(rollout(core, ids())[-1], torch.eye(23))
    assert not to_bertviz(core, ids())["attention"][0].isnan().any()


def test_term_norms_and_bertviz_shapes():
    core = make_core(lambda_layers="0,2")
    terms = term_norms(core, ids())
    assert [list(layer) for layer in terms] == [["content", "position"], ["attention"], ["content", "position"]]
    view = to_bertviz(core, ids())
    assert [tuple(a.shape) for a in view["attention"]] == [(1, 2, 23, 23)] * 3 and len(view["tokens"]) == 23
    torch.testing.assert_close(view["attention"][0].sum(-1), torch.ones(1, 2, 23))


def test_bertviz_gets_zeros_from_a_layer_without_the_part():
    core = make_core(lambda_layers="0,2")
    for part, empty in (("content", [1]), ("position", [1]), ("attention", [0, 2])):
        maps = to_bertviz(core, ids(9), part=part)["attention"]
        assert [tuple(a.shape) for a in maps] == [(1, 2, 9, 9)] * 3  # bertviz stacks them
        assert [layer for layer, a in enumerate(maps) if not a.any()] == empty
    content = contributions(core, ids(9), 2).norms("content")
    found = to_bertviz(core, ids(9), part="content")["attention"][2][0].transpose(0, 1)
    torch.testing.assert_close(found, content / content.sum(-1, keepdim=True))
    with pytest.raises(ValueError, match="part='attention': this model has all, content, position"):
        to_bertviz(make_core(), ids(9), part="attention")


def test_the_model_is_left_as_it_was():
    core = make_core(norm="batch", dropout=0.5).train()
    core.encoder.layers[1].eval()
    before = {name: tensor.clone() for name, tensor in core.state_dict().items()}
    first, second = (contributions(core, ids(), 1).output() for _ in range(2))
    torch.testing.assert_close(first, second)
    assert core.training and not core.encoder.layers[1].training and core.encoder.layers[2].training
    assert all(torch.equal(before[name], tensor) for name, tensor in core.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in core.modules())


def test_what_cannot_be_read_is_said():
    core = make_core()
    with pytest.raises(ValueError, match="layer=3: the model has 3 layers, counted from 0"):
        contributions(core, ids(), 3)
    assert contributions(core, ids(), -1).layer == 2
    with pytest.raises(ValueError, match="without a vocabulary"):
        contributions(core, "a text", 0)
    with pytest.raises(ValueError, match="one text"):
        contributions(core, ids()[None], 0)
    with pytest.raises(ValueError, match="Linear contains no LambdaBert"):
        reader(torch.nn.Linear(2, 2))
