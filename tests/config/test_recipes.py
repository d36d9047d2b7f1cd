"""A recipe means the same as flags of the train command, under fairseq-hydra-train, and in the options' defaults."""

import pytest
import torch
from conftest import make_task
from fairseq import options
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from fairseq_lambda.commands.flags import recipe_flags
from fairseq_lambda.config import SIZES, read_recipe, schedule
from fairseq_lambda.models import LambdaBertModel, lambda_bert_config

SECTIONS = "model task criterion optimizer lr_scheduler dataset optimization checkpoint common".split()


def by_flags(*flags):
    """Return the whole configuration, as fairseq-train makes it."""
    args = options.parse_args_and_arch(options.get_training_parser(), ["/data", *flags])
    return plain(convert_namespace_to_omegaconf(args))


def by_hydra(*overrides):
    """Return the whole configuration, as fairseq-hydra-train makes it."""
    hydra_init("pretrain")
    # 1.1 is what fairseq's own calls of hydra set; a newer one would stay set for all tests of this process
    with initialize_config_module("fairseq_lambda.config", version_base="1.1"):
        cfg = compose("pretrain", overrides=["task.data=/data", *overrides])
    add_defaults(cfg)
    return plain(cfg)


def plain(cfg):
    whole = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {section: whole[section] for section in SECTIONS}


@pytest.mark.parametrize("size", SIZES)
def test_flags_and_hydra_give_the_same_configuration_and_model(size):
    flags, hydra = by_flags(*recipe_flags(read_recipe(size), [])), by_hydra(f"model=lambda_bert_{size}")
    for section in SECTIONS:
        assert flags[section] == hydra[section], section
    with torch.device("meta"):
        models = [LambdaBertModel.build_model(OmegaConf.create(cfg["model"]), make_task()) for cfg in (flags, hydra)]
    one, two = ({name: p.shape for name, p in model.named_parameters()} for model in models)
    layers, width, heads = lambda_bert_config.SIZES[size]
    assert one == two and one["encoder.bert.embed_tokens.weight"][1] == width
    assert [layer.mixing.heads for layer in models[0].encoder.bert.encoder.layers] == layers * [heads]


def test_hydra_takes_mini_unless_told_otherwise():
    assert by_hydra() == by_hydra("model=lambda_bert_mini")


def test_the_sizes_are_those_of_the_model():
    assert list(SIZES) == list(lambda_bert_config.SIZES)
    with pytest.raises(ValueError, match="unknown size 'huge': tiny, mini, small, medium, base or large"):
        read_recipe("huge")


@pytest.mark.parametrize("size", SIZES)
def test_what_the_updates_decide_is_what_the_recipe_says(size):
    recipe = read_recipe(size)
    assert OmegaConf.merge(recipe, schedule(recipe.optimization.max_update)) == recipe
