"""Made-up data for all probing tasks, a few hundred sentences."""

import itertools
import lzma
import random

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folders of all data with a few hundred made-up sentences."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    for name in ("ud_ewt", "20ng", "bso"):
        (folder / name).mkdir()
    for split, bso, count in (("train", "train", 150), ("dev", "valid", 60), ("test", "test", 60)):
        sentences = []
        for _ in range(count):
            past, plural = draw.random() < 0.5, draw.random() < 0.5
            noun = ("NOUN", f"Number={'Plur' if plural else 'Sing'}", f"dog{draw.randrange(9)}{'s' * plural}")
            verb = ("VERB", f"VerbForm=Fin|Tense={'Past' if past else 'Pres'}", "slept" if past else "sleeps")
            words = [("the", "DET", "_", 2, "det"), (noun[2], *noun[:2], 3, "nsubj"), (verb[2], *verb[:2], 0, "root")]
            words.append((noun[2], *noun[:2], 3, "obj"))
            for _ in range(draw.randrange(2, 20)):
                words.append((draw.choice("abcdefgh") * 3, "ADV", "_", draw.randrange(3, len(words) + 1), "advmod"))
            sentences.append(words)
        lines = []
        for words in sentences:
            lines += [
                f"{i}\t{w}\t{w}\t{tag}\tX\t{f}\t{head}\t{rel}\t_\t_"
                for i, (w, tag, f, head, rel) in enumerate(words, 1)
            ]
            lines.append("")
        (folder / f"ud_ewt/{split}.conllu").write_text("\n".join(lines) + "\n")
        texts = [" ".join(w[0] for w in words) for words in sentences]
        (folder / f"bso/wiki.{bso}.txt").write_text("".join(f"{a} .\t{b} .\n" for a, b in itertools.pairwise(texts)))
        if split != "dev":
            with lzma.open(folder / f"20ng/{split}.tsv.xz", "wt") as file:
                file.writelines(f"topic{i % 3}\ttopic{i % 3}word {text}\n" for i, text in enumerate(texts))
    return folder


@pytest.fixture
def few_words(monkeypatch):
    """Word content with few words, since the made-up sentences have few."""
    monkeypatch.setattr("probing_sentences.WORDS", 12)
    monkeypatch.setattr("probing_sentences.SKIPPED_WORDS", 10)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus in which 14 rare words are in sentences of 30 frequent ones; word content takes 8 of them."""
    monkeypatch.setattr("probing_sentences.SKIPPED_WORDS", 30)
    monkeypatch.setattr("probing_sentences.BALANCED_WORDS", 8)
    draw, frequent = random.Random(0), [f"{a}{b}{a}" for a in "klmnp" for b in "aeiouy"]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, count in (("train", 900), ("valid", 150), ("test", 150)):
        lines = []
        for i in range(count):
            words = draw.sample(frequent, draw.randrange(6, 12))
            words[draw.randrange(1, 5)] = f"rare{'abcdefghijklmn'[i % 14]}"
            lines.append(" ".join(words).capitalize() + "." + "\n" * (i % 3 == 2))
        lines.append("Only this one sentence is in every split.")
        text = "\n".join(lines) + "\n"
        if split == "train":
            (folder / "train.txt.xz").write_bytes(lzma.compress(text.encode()))
        else:
            (folder / f"{split}.txt").write_text(text)
    return folder
