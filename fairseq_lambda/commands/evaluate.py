"""``lambda-bert evaluate``: scores a checkpoint on whole splits: masked LM and sentence order."""

import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from fairseq import utils
from fairseq.logging import progress_bar

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterion
from fairseq_lambda.files import output, sha256
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.trust import check_criterion


def evaluate(
    hub: LambdaBertHubInterface, splits: list[str], batch_size: int, progress: str = "none"
) -> dict[str, dict[str, float]]:
    """Return the scores of each split; ``hub.task`` reads the data folder that its ``cfg.data`` names.

    Pairs and masks are those of validation in training: fixed, given the seed of the checkpoint's task, and the same
    for every model trained with that seed. The whole split counts, including the last batch.

    Returns:
        ``mlm_ppl`` and ``mlm_loss`` (nats per masked token), ``mlm_acc`` and ``sop_acc`` (percent), ``masked_tokens``,
        ``pairs``; no ``sop_acc`` without sentence pairs.
    """
    check_criterion(hub.cfg.criterion, MaskedLMSOPCriterion)
    criterion = hub.task.build_criterion(hub.cfg.criterion).eval()
    results = {}
    for split in splits:
        hub.task.load_dataset(split, epoch=1)
        batches = hub.task.get_batch_iterator(
            hub.task.dataset(split),
            max_sentences=batch_size,
            max_positions=hub.task.max_positions(),
            required_batch_size_multiple=1,  # fairseq drops the last batch unless this divides its size
        ).next_epoch_itr(shuffle=False)
        sums: dict[str, float] = {}
        for batch in progress_bar.progress_bar(batches, progress, 20, prefix=f"evaluate {split}"):
            batch = utils.move_to_cuda(batch) if hub.device.type == "cuda" else batch
            _, _, log = hub.task.valid_step(batch, hub.model, criterion)
            for key, value in log.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        if not sums.get("sample_size"):
            raise ValueError(f"{split} has no token that can be masked: none of its words is in the vocabulary")
        loss = sums["mlm_loss"] / sums["sample_size"]
        results[split] = {
            "mlm_ppl": math.exp(loss),
            "mlm_loss": loss,
            "mlm_acc": 100 * sums["mlm_correct"] / sums["sample_size"],
            "masked_tokens": int(sums["sample_size"]),
            "pairs": int(sums.get("npairs", 0)),
        }
        if sums.get("npairs"):
            results[split]["sop_acc"] = 100 * sums["sop_correct"] / sums["npairs"]
    return results


def table(results: dict[str, dict[str, float]], objective: str) -> str:
    """Return the scores as a Markdown table."""
    name = {"sop": "sentence order", "nsp": "next sentence", "none": "sentence"}[objective]
    lines = [
        f"| split | masked-LM perplexity | masked-LM accuracy | {name} accuracy | masked tokens | pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for split, r in results.items():
        order = f"{r['sop_acc']:.1f} %" if "sop_acc" in r else "-"
        lines.append(
            f"| {split} | {r['mlm_ppl']:.2f} | {r['mlm_acc']:.1f} % | {order} "
            f"| {r['masked_tokens']:,} | {r['pairs']:,} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert evaluate checkpoints/my-run --data data-bin/wikitext-2 --json scores.json"
    parser = Parser("evaluate", __doc__.split(": ", 1)[1], example)
    add = parser.add_argument
    add("checkpoint", help=MODEL)
    add("--data", required=True, help="folder made by lambda-bert preprocess")
    add("--splits", help="names of splits, separated by commas (default: valid, and test if the data has it)")
    add("--batch-size", type=int, default=32, help="samples per batch (default: %(default)s)")
    add("--json", type=Path, help="file to write the scores to (default: none)")
    add("--cpu", action="store_true", help="run on the CPU (default: on a GPU if there is one)")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size}: must be at least 1")
    splits = args.splits.split(",") if args.splits else ["valid", "test"]
    if os.pathsep in args.data:
        parser.error(f"--data {args.data}: give one folder at a time")
    if not args.splits and not Path(args.data, "test.idx").is_file():
        splits.remove("test")
    weights = find_checkpoint(args.checkpoint)
    hub = LambdaBertModel.from_pretrained(weights)
    if getattr(hub.task, "labels", None) is not None:
        raise ValueError(f"{args.checkpoint} was fine-tuned: lambda-bert finetune has scored it, see its scores.json")
    hub.task.cfg.data = args.data
    if torch.cuda.is_available() and not args.cpu:
        hub = hub.cuda()
    begin = time.time()
    show = "tqdm" if sys.stderr.isatty() else "none"
    results = evaluate(hub, splits, args.batch_size, show)
    objective = hub.task.sentence_objective
    print(table(results, objective))
    where = torch.cuda.get_device_name() if hub.device.type == "cuda" else "CPU"
    print(
        f"\n{args.checkpoint} on {args.data}; fixed masks and pairs of seed {hub.task.cfg.seed}; "
        f"{time.time() - begin:.0f} s on {where}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    if args.json:
        report = {
            "checkpoint": Path(args.checkpoint).name,
            "weights": sha256(weights),
            "data": Path(os.path.abspath(args.data)).name,
            "seed": hub.task.cfg.seed,
            "sentence_objective": objective,
            "torch": torch.__version__,
            "splits": results,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        with output(args.json) as file:
            file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
