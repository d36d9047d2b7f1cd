"""Small corpora, and the prepare command run on them."""

import random

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora.characters import plan_characters
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.training_text import TextStatistics
from fairseq_lambda.corpora.vocabulary import Lesson, check_size, learn

WORDS = ["ba", "ke", "li", "mo", "nu", "ra", "si", "to"]
DOCUMENTS = {"train": 30, "valid": 4, "test": 3}


def moses_text(split, seed=0):
    draw = random.Random(f"{seed}-{split}")
    lines = [" "]
    for number in range(DOCUMENTS[split]):
        lines += [f" = Title {number} = ", " "]
        for _ in range(2):
            words = ["".join(draw.choices(WORDS, k=draw.randint(1, 3))) for _ in range(8)]
            lines.append(" " + " ".join(words) + " , <unk> . " + " ".join(words[::-1]) + " . ")
        lines += [" ", " = = Section = = ", " "]
    return "\n".join(lines) + "\n"


def write_corpus(folder):
    folder.mkdir()
    for split in DOCUMENTS:
        (folder / f"wiki.{split}.tokens").write_text(moses_text(split), encoding="utf-8")
    return folder


def plain_documents(count, seed=0):
    """Return documents of plain text, lists of paragraphs."""
    draw = random.Random(seed)
    word = lambda: "".join(draw.choices(WORDS, k=draw.randint(1, 3)))  # noqa: E731
    sentence = lambda: " ".join(word() for _ in range(draw.randint(3, 9))).capitalize() + "."  # noqa: E731
    paragraph = lambda: " ".join(sentence() for _ in range(draw.randint(1, 4)))  # noqa: E731
    return [[paragraph() for _ in range(draw.randint(1, 4))] for _ in range(count)]


def as_text(documents):
    return "\n\n".join("\n".join(paragraphs) for paragraphs in documents) + "\n"


def write_paragraphs(folder, sentences, separator=" ", count=40):
    folder.mkdir()
    for split in DOCUMENTS:
        draw = random.Random(split)
        numbered = ([s.replace("N", str(draw.randrange(10**6))) for s in sentences] for _ in range(count))
        (folder / f"{split}.txt").write_text("\n\n".join(map(separator.join, numbered)) + "\n", encoding="utf-8")
    return folder


def prepare(*arguments, read_other=None):
    size = [] if "--vocabulary-from" in arguments else ["--vocab-size", 64]
    return command.main([str(a) for a in (*size, "--workers", 1, *arguments)], read_other)


def only_error(capsys):
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 1 and errors[0] == lines[-1]
    assert "Traceback" not in "\n".join(lines)
    return errors[0]


def learned(sentences, vocab_size, path, coverage=None, byte_fallback=None):
    """Learn a vocabulary from sentences and write it to ``path``; return its size and the plan of its characters."""
    statistics = TextStatistics()
    statistics.add(sentences)
    check_size(vocab_size)
    plan = plan_characters(statistics.characters, vocab_size, coverage, byte_fallback)
    text = path.with_name("learned.sentences")
    text.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    path.write_bytes(learn(Lesson(text, 1, vocab_size, plan)))
    return len(PieceEncoder(path).processor), plan
