"""Controls without a pretrained model: the majority, a bag of words, each word's most frequent tag."""

import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from fairseq_lambda.commands import labelled
from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.finetuning.labels import learn_labels
from fairseq_lambda.finetuning.metrics import names_of, scores


def control(kind: str, task: dict, files: dict[str, Path]) -> dict:
    """Return ``metric`` and ``test``: the scores on the test file of a control trained on the training file."""
    parser = Parser("control", "", "")
    labelled.add_columns(parser)
    parser.add_argument("--metric")
    args, _ = parser.parse_known_args(shlex.split(task["flags"]))
    source = {split: labelled.source(args, str(path)) for split, path in files.items()}
    labels = learn_labels(source["train"], source["train"].name, None, None)
    train, test = list(source["train"]), list(source["test"])
    target = {name: [labels.target(e, name) for e in rows] for name, rows in (("train", train), ("test", test))}
    predict = words if labels.objective == "tagging" else texts
    predicted = predict(kind, train, target["train"], test)
    lengths = [len(row) for row in target["test"]] if labels.objective == "tagging" else []
    wanted = sum(target["test"], []) if labels.objective == "tagging" else target["test"]
    found = scores(labels, np.array(predicted), np.array(wanted), lengths)
    return {"metric": args.metric or names_of(labels)[0], "test": {**found, "texts": len(test)}}


def texts(kind: str, train: list, target: list[int], test: list) -> list[int]:
    """Return a label index per text of ``test``; in pairs, each text has its own words."""
    if kind == "majority":
        return [Counter(target).most_common(1)[0][0]] * len(test)
    columns = []
    for part in range(len(train[0].texts)):
        vectoriser = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), min_df=2)
        columns.append([vectoriser.fit_transform(e.texts[part] for e in train)])
        columns[-1].append(vectoriser.transform(e.texts[part] for e in test))
    fit, apply = (scipy.sparse.hstack(matrices) for matrices in zip(*columns, strict=True))
    return LogisticRegression(C=10, max_iter=2000).fit(fit, target).predict(apply).tolist()


def words(kind: str, train: list, target: list[list[int]], test: list) -> list[int]:
    """Return a label index per word of ``test``; words unknown from training get the most frequent label."""
    everything = Counter(label for row in target for label in row)
    most = everything.most_common(1)[0][0]
    seen: dict[str, Counter] = {}
    for example, row in zip(train, target, strict=True):
        for word, label in zip(example.words, row, strict=True):
            seen.setdefault(word, Counter())[label] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in seen.items()} if kind != "majority" else {}
    return [best.get(word, most) for example in test for word in example.words]
