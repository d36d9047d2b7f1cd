"""A prepared corpus on disk: which files its folder has, whether it is intact, and its report as text."""

import json
import os
from pathlib import Path

from fairseq_lambda.corpora.documents import DIVIDERS
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.local import SPLITS
from fairseq_lambda.corpora.progress import report_progress
from fairseq_lambda.corpora.shared_vocabulary import DICTIONARY, MODEL
from fairseq_lambda.files import sha256, whole

REPORT = "report.json"


def outputs(splits: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the files that hold the result, for a corpus of these splits."""
    return (DICTIONARY, MODEL, *(f"{split}.{end}" for split in splits for end in ("bin", "idx")))


OUTPUTS = outputs(SPLITS)


def is_up_to_date(dest: Path, settings: dict, force: bool, splits: tuple[str, ...] = SPLITS) -> bool:
    """Return whether ``dest`` is an intact result with the same settings; print that it is, or why it is rebuilt.

    Raises:
        PrepareError: ``dest`` was not made by this command, or, without ``force``, was made with other settings.
    """
    if not dest.exists():
        return False
    if not dest.is_dir():
        raise PrepareError(f"{dest} is a file; choose another --dest")
    foreign = sorted(set(os.listdir(dest)) - {REPORT, *OUTPUTS})
    if foreign:
        raise PrepareError(f"{dest} contains {foreign[0]}, which this command did not write; choose another --dest")
    if force or not os.listdir(dest):
        return False
    try:
        report = json.loads((dest / REPORT).read_text(encoding="utf-8"))
        before, hashes = dict(report["settings"]), dict(report["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        report_progress(f"{dest} has no usable {REPORT}: rebuilding it")
        return False
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        differences = "; ".join(
            f"{name} was {json.dumps(before.get(name))}, now {json.dumps(settings[name])}"
            if name != "source"
            else "the source's files have changed"
            for name in changed
        )
        raise PrepareError(
            f"{dest} was prepared with other settings ({differences}): pass --force to rebuild it, "
            "or choose another --dest"
        )
    for name in outputs(splits):
        path = dest / name
        if not path.is_file() or sha256(path) != hashes.get(name):
            report_progress(f"{path} is missing or damaged: rebuilding {dest}")
            return False
    print(f"{dest} is up to date; --force rebuilds it")
    return True


def write_report(report: dict, folder: Path) -> None:
    """Write the report beside the files that it describes."""
    with whole(folder / REPORT) as new:
        new.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def format_report(report: dict) -> str:
    """Return the report as text: a table with one line per split, then warnings, vocabulary, inputs and source."""
    columns = {
        "documents": "documents",
        "sentences": "sentences",
        "tokens": "tokens",
        "tokens_per_sentence": "tok/sent",
        "longest_sentence": "longest",
        "sentences_per_paragraph": "sent/par",
        "literal_unknown_rate": "<unk> text",
        "encoder_unknown_rate": "unknown",
    }
    lines = ["split " + "".join(f"{title:>12}" for title in columns.values())]
    for split, values in report["splits"].items():
        cells = (
            f"{values[key]:>12.3%}"
            if key.endswith("rate")
            else f"{values[key]:>12,.2f}"
            if "_per_" in key
            else f"{values[key]:>12,}"
            for key in columns
        )
        lines.append(f"{split:<6}" + "".join(cells))
    layout, settings = report["layout"], report["settings"]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    form = "Moses-tokenised" if layout["is_moses"] else "plain text"
    if layout["is_moses"] and not settings["keep_moses"]:
        form += ", written out as ordinary English"
    others = "bytes" if report["byte_fallback"] else "<unk>"
    size, wanted = report["vocabulary_size"], settings["vocab_size"]
    less = f" (not {wanted}: the text has no more useful ones)" if size < wanted else ""
    lines.append(
        f"vocabulary: {size} pieces with special symbols{less}; {report['characters']} characters "
        f"cover {report['character_coverage']:.4%} of the text, others become {others}"
    )
    for split, entry in report["inputs"].items():
        if isinstance(entry, list):
            size = sum(file["bytes"] for file in entry)
            lines.append(f"{split}: {len(entry)} files, {entry[0]['name']} to {entry[-1]['name']}, {size:,} bytes")
        else:
            lines.append(f"{split}: {entry['name']}, {entry['bytes']:,} bytes, sha256 {entry['sha256']}")
    lines.append(f"documents: {DIVIDERS[layout['divider']]}")
    lines.append(f"source: {settings['corpus']} ({settings['source']['kind']}), {form}")
    lines.append(f"licence: {report['licence']}")
    return "\n".join(lines)
