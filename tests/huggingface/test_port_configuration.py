"""LambdaBertConfig: names, aliases, limits, errors that name what the user wrote."""

import pytest
from small_port import config

from fairseq_lambda.huggingface import LambdaBertConfig, LambdaBertModel
from fairseq_lambda.huggingface.configuration import core_options, of_core
from fairseq_lambda.modules import LambdaBertOptions


def test_defaults_are_base_over_berts_vocabulary():
    options = core_options(LambdaBertConfig())
    assert options == LambdaBertOptions(
        vocab_size=30522, padding_idx=0, eos_idx=102, max_positions=options.max_positions
    )


def test_the_seeds_names_are_aliases():
    made = LambdaBertConfig(local_context_size=25, output_lambda_params=True, key_depth=8, intra_depth=4)
    assert (made.local_context, made.output_lambdas, made.dim_k, made.dim_u) == (25, True, 8, 4)
    made.key_depth = 4
    assert made.dim_k == made.key_depth == 4
    assert "key_depth" not in made.to_dict()


@pytest.mark.parametrize(
    "options",
    [{}, {"lambda_layers": "0", "max_position_embeddings": 40}, {"hidden_act": "gelu_new", "post_norm": True}],
)
def test_comes_back_from_json_and_from_the_core(options, tmp_path):
    made = config(**options)
    made.save_pretrained(tmp_path)
    again = LambdaBertConfig.from_pretrained(tmp_path)
    assert core_options(again) == core_options(made)
    core = core_options(made)
    assert core_options(LambdaBertConfig(**of_core(core))) == core
    assert again.auto_map["AutoModelForMaskedLM"] == "modeling_lambda_bert.LambdaBertForMaskedLM"


def test_a_limit_of_length_is_said_where_there_is_one():
    assert config().max_position_embeddings == -1  # what libraries read as "no limit"
    for options in ({"absolute_positions": "learned"}, {"local_context": 0}, {"lambda_layers": "0"}):
        assert config(max_position_embeddings=40, **options).max_position_embeddings == 40
        with pytest.raises(ValueError, match="max_position_embeddings=-1"):
            config(max_position_embeddings=-1, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0"),
        ({"lambda_layers": "5"}, "layer 5 does not exist"),
        ({"absolute_positions": "rotary"}, "absolute_positions=rotary"),
        ({"lambda_layers": "5"}, "num_hidden_layers=2"),
        ({"num_attention_heads": 5}, "^hidden_size=32 is not divisible by num_attention_heads=5$"),
        ({"num_attention_heads": 5, "lambda_layers": "none"}, "^hidden_size=32 .* num_attention_heads=5$"),
        *(({name: "foo"}, f"^{name}=foo: ") for name in ("lambda_norm", "lambda_gate", "lambda_terms")),
        *(({name: "foo"}, f"^{name}=foo: ") for name in ("lambda_backend", "hidden_act", "pooler_act")),
        ({"eos_token_id": [2, 3]}, r"^eos_token_id=\[2, 3\]: must be one"),
        ({"pad_token_id": None, "absolute_positions": "learned"}, "^pad_token_id=None: learned positions"),
        ({"pad_token_id": None, "absolute_positions": "sinusoidal"}, "^pad_token_id=None: sinusoidal positions"),
    ],
)
def test_errors_name_the_option(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


@pytest.mark.parametrize("options", [{"lambda_backend": "triton"}, {"lambda_norm": "foo"}])
def test_so_do_the_errors_of_a_model(options, monkeypatch):
    monkeypatch.setattr("fairseq_lambda.ops.why_not_here", lambda: "there is no CUDA device")
    made = config()
    for name, value in options.items():
        setattr(made, name, value)  # as from_pretrained(folder, name=value) does
        with pytest.raises(ValueError, match=f"^{name}={value}: "):
            LambdaBertModel(made)


def test_no_classifier_dropout_is_none():
    assert config(classifier_dropout=None).classifier_dropout == 0
