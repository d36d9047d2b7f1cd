"""fairseq's Trainers for the models that are compared, and a batch for their steps."""

from pathlib import Path

import torch
from fairseq import options as fairseq_options
from fairseq import tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer

from fairseq_lambda.commands.flags import recipe_flags
from fairseq_lambda.config import read_recipe
from fairseq_lambda.models.lambda_bert_config import SIZES, LambdaBertConfig

MODELS = ("lambda", "hybrid", "lambda-wide", "baseline", "roberta")
VOCABULARY = 16000


def make_trainer(flags: list[str], seed: int) -> Trainer:
    """Return the Trainer for a fairseq-train command line."""
    args = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), flags)
    cfg = convert_namespace_to_omegaconf(args)
    torch.manual_seed(seed)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.begin_epoch(1)
    return trainer


def lambda_layers(name: str, layers: int) -> str:
    """Return the ``--lambda-layers`` of one of MODELS with ``layers`` layers: hybrid has one attention layer."""
    middle = ",".join(str(layer) for layer in range(layers) if layer != layers // 2)
    return {"hybrid": middle, "baseline": "none"}.get(name, "all")


def flags_of(name: str, size: str) -> list:
    """Return the flags that make a lambda_bert of ``size`` one of MODELS; attention layers have rotary positions."""
    layers, width, heads = SIZES[size]
    if name in ("hybrid", "baseline"):
        return ["--lambda-layers", lambda_layers(name, layers), "--attention-rotary"]
    if name == "lambda-wide":
        # Per layer softmax has 4 C^2 in its projections, the lambda layer (h k + k u + v u) C and its gate C^2.
        k, u = LambdaBertConfig.lambda_key_depth, LambdaBertConfig.lambda_intra_depth
        missing = 3 * width - heads * k - k * u - width // heads * u
        return ["--encoder-ffn-embed-dim", 4 * width + missing // 2 // 32 * 32]
    return []


def trainer_of(name: str, length: int, options, folder: Path, more: list[str] = ()) -> Trainer:
    """Return the Trainer for one of MODELS with the recipe of ``options.size`` and more flags; writes ``folder``."""
    (folder / "dict.txt").write_text("".join(f"w{i} 1\n" for i in range(VOCABULARY)))
    layers, width, heads = SIZES[options.size]
    flags = ["--tokens-per-sample", length, "--dropout", 0, "--seed", options.seed, "--log-format", "none"]
    flags += ["--cpu"] if options.device == "cpu" else []
    if name == "roberta":
        flags += ["--arch", "roberta_base", "--criterion", "masked_lm", "--sentence-objective", "none"]
        flags += ["--encoder-layers", layers, "--encoder-embed-dim", width, "--encoder-ffn-embed-dim", 4 * width]
        flags += ["--encoder-attention-heads", heads, "--max-positions", length, "--attention-dropout", 0]
    else:
        flags += ["--autocast", options.autocast, *flags_of(name, options.size)]
    flags = [str(flag) for flag in (*flags, *more)]
    return make_trainer([str(folder), *recipe_flags(read_recipe(options.size), flags), *flags], options.seed)


def random_batch(length: int, batch: int, seed: int) -> dict:
    """Return a batch like those of the task's collater: random pieces, 15 % of them masked, two segments."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 4 + VOCABULARY, (batch, length), generator=generator)
    masked = torch.rand(batch, length, generator=generator) < 0.15
    target = torch.where(masked, tokens, 1)
    source = torch.where(masked, 4 + VOCABULARY, tokens)
    source[:, 0], source[:, length // 2 : length // 2 + 2], source[:, -1] = 0, 2, 2
    return {
        "id": torch.arange(batch),
        "nsentences": batch,
        "ntokens": batch * length,
        "net_input": {"src_tokens": source, "src_lengths": torch.full((batch,), length), "has_padding": False},
        "target": target,
        "masked_positions": target.flatten().ne(1).nonzero().squeeze(1),
        "sentence_target": torch.randint(0, 2, (batch,), generator=generator),
    }
