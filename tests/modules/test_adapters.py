"""Third-party tools on the model: peft's adapters, dynamic quantisation, pruning. Each looks for modules it knows."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from fairseq_lambda.modules import LambdaBert, LambdaBertOptions

SHAPE = {"vocab_size": 50, "layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "heads": 2, "dim_k": 4}
PROJECTIONS = ["q_proj", "k_proj", "v_proj"]


@pytest.fixture
def model():
    return LambdaBert(LambdaBertOptions(**SHAPE)).eval()


@pytest.fixture
def tokens():
    return torch.randint(3, 50, (3, 11))


@pytest.fixture(scope="module")
def peft():
    try:  # it imports transformers, which may import a torchaudio that does not match torch
        return pytest.importorskip("peft")
    except OSError as error:
        pytest.skip(f"peft cannot be imported: {error}")


@pytest.mark.parametrize("kind", ["LoraConfig", "IA3Config", "LoHaConfig"])
def test_adapters_of_peft_change_the_output_and_merge(peft, kind, model, tokens):
    new = {"LoraConfig": "init_lora_weights", "IA3Config": "init_ia3_weights", "LoHaConfig": "init_weights"}[kind]
    more = {"feedforward_modules": []} if kind == "IA3Config" else {}
    config = getattr(peft, kind)(target_modules=PROJECTIONS, **{new: False}, **more)  # else it starts as the identity
    before = model(tokens).features.detach()
    adapted = peft.get_peft_model(model, config).eval()
    after = adapted(tokens).features.detach()
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(adapted.merge_and_unload()(tokens).features, after, atol=1e-6, rtol=1e-5)


def test_lora_trains_alone_and_is_stored_alone(peft, model, tokens, tmp_path):
    """Every adapter learns, nothing else does, and a new model with the stored adapter computes the same."""
    original = {name: weight.clone() for name, weight in model.state_dict().items()}
    # a large alpha, because the adapters alone have to fit the targets
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=32, target_modules=PROJECTIONS))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(PROJECTIONS) * SHAPE["layers"] and all(".lora_" in name for name in trained)
    optimizer, losses = torch.optim.Adam(trained.values(), lr=1e-2), []
    for _ in range(30):
        logits = adapted.base_model.model.lm_head(adapted(tokens).features)
        losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.03
    assert all(p.grad.abs().sum() > 0 for p in trained.values())
    adapted.save_pretrained(tmp_path)
    fresh = LambdaBert(LambdaBertOptions(**SHAPE)).eval()
    fresh.load_state_dict(original)
    restored = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    torch.testing.assert_close(restored(tokens).features, adapted.eval()(tokens).features, atol=1e-6, rtol=1e-5)


def test_dynamic_quantisation_reaches_every_projection(model, tokens):
    if not hasattr(torch.ao.quantization, "quantize_dynamic"):
        pytest.skip("this torch has no quantize_dynamic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantize_dynamic is deprecated
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    mixing = quantised.encoder.layers[0].mixing
    for name in (*PROJECTIONS, "gate_proj"):
        assert type(getattr(mixing, name)).__module__.startswith("torch.ao.nn.quantized.dynamic"), name
    expected, found = model(tokens).features, quantised(tokens).features
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.05
    logits = quantised.lm_head(found)
    assert logits.shape == (3, 11, 50) and logits.argmax(-1).eq(model.lm_head(expected).argmax(-1)).float().mean() > 0.8


@pytest.mark.parametrize("name", [*PROJECTIONS, "gate_proj"])
def test_pruning_a_projection_counts(name, model, tokens):
    before = model(tokens).features.detach()
    prune.l1_unstructured(getattr(model.encoder.layers[1].mixing, name), "weight", amount=0.5)
    pruned = model(tokens).features
    assert (pruned - before).abs().max() > 1e-4
    prune.remove(getattr(model.encoder.layers[1].mixing, name), "weight")
    torch.testing.assert_close(model(tokens).features, pruned)
