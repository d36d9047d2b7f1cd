"""Predictions of a fine-tuned model: labels of texts and of words, in batches by length."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from fairseq_lambda.data.shorten import SPECIAL, cut_at_words, join
from fairseq_lambda.finetuning.labels import ANY, Labels
from fairseq_lambda.finetuning.words import split_words, word_pieces
from fairseq_lambda.models.batching import by_length
from fairseq_lambda.symbols import WORD_START


class Classification(NamedTuple):
    """A text's ``label``, its ``probability``, and those of all labels by name.

    With several labels per text, ``label`` is a list and ``probability`` that of its least likely member; for an empty
    list it is 1 minus that of the likeliest label. For regression, ``label`` is the number, without probabilities.
    """

    label: str | list[str] | float
    probability: float | None
    probabilities: dict[str, float]


class TaggedWord(NamedTuple):
    """A word, its label, and the label's probability."""

    word: str
    label: str
    probability: float


class FineTuned:
    """The part of the hub interface that serves a fine-tuned model's head: ``classify`` and ``tag``.

    A mixin: the class that combines it with fairseq's interface has ``task``, ``model``, ``bpe`` and ``device``.

    ``shortened`` counts the texts so far that were longer than a sample in training.
    """

    shortened = 0

    @property
    def labels(self) -> Labels:
        """Return what the model predicts.

        Raises:
            ValueError: it was not fine-tuned.
        """
        labels = getattr(self.task, "labels", None)
        if labels is None:
            raise ValueError("this model was pretrained and not fine-tuned: lambda-bert finetune gives it labels")
        return labels

    def classify(self, texts, pair=None):
        """Return the :class:`Classification` of a text, or a list of them for a list.

        Args:
            texts: a text, or a list of texts.
            pair: for a model of pairs, the second text of each pair: a text, or a list as long as ``texts``.

        Raises:
            ValueError: the model labels words, or texts and pairs do not match.
        """
        if self.labels.objective == "tagging":
            raise ValueError("this model labels words: use tag()")
        single = isinstance(texts, str)
        first = [texts] if single else list(texts)
        second = None if pair is None else [pair] if isinstance(pair, str) else list(pair)
        for text in (*first, *(second or [])):
            if not isinstance(text, str):
                raise TypeError(f"classify takes texts (str), not {type(text).__name__}")
        if self.labels.texts != ANY and (second is None) != (self.labels.texts == 1):
            raise ValueError(
                f"this model reads {self.labels.texts} text(s) at a time: "
                + ("give the second one as pair=" if second is None else "leave out pair=")
            )
        if second is not None and len(second) != len(first):
            raise ValueError(f"{len(first)} texts, but {len(second)} in pair=: give the same number of each")
        rows = self.text_outputs([(a,) for a in first] if second is None else list(zip(first, second, strict=True)))
        found = [classification(self.labels, row) for row in rows]
        return found[0] if single else found

    def tag(self, words):
        """Return a list of :class:`TaggedWord`; for a list of lists, a list of such lists.

        A text that is longer than a sample in training is read in parts, so that every word gets a label.

        Args:
            words: a list of words, or a text, which is divided at spaces and punctuation; or a list of lists of words.

        Raises:
            ValueError: the model labels texts.
        """
        if self.labels.objective != "tagging":
            raise ValueError("this model labels texts: use classify()")
        if isinstance(words, str):
            words = split_words(words)
        single = not words or isinstance(words[0], str)
        texts = [words] if single else words
        if not all(isinstance(text, list | tuple) and all(isinstance(word, str) for word in text) for text in texts):
            raise TypeError("tag takes a text, the words of a text, or a list of lists of words")
        names = self.labels.names
        tagged = []
        for text, rows in zip(texts, self.word_outputs(texts), strict=True):
            best = rows.argmax(axis=1) if len(rows) else []
            tagged.append(
                [
                    TaggedWord(word, names[index], float(row[index]))
                    for word, row, index in zip(text, rows, best, strict=True)
                ]
            )
        return tagged[0] if single else tagged

    def text_outputs(self, texts: Iterable[tuple[str, ...]]) -> Iterator[np.ndarray]:
        """Yield for each text or pair the probabilities (labels,), or for regression the number (1,)."""
        samples = (self._text_sample(parts) for parts in texts)
        return by_length(self._text_rows, samples, self.task.source_dictionary.pad())

    def word_outputs(self, texts: Iterable[list[str]]) -> Iterator[np.ndarray]:
        """Yield for each list of words the probabilities (words, labels)."""
        # for each text read: the number of its words; for each of its parts, which words it has and where
        pending: deque[tuple[int, list]] = deque()
        samples = (sample for words in texts for sample in self._word_samples(words, pending))
        outputs = by_length(self._word_rows, samples, self.task.source_dictionary.pad())
        for first in outputs:
            words, places = pending.popleft()
            rows = np.zeros((words, self.labels.outputs))
            for part, (within, positions) in enumerate(places):
                rows[within] = (first if part == 0 else next(outputs))[positions]
            yield rows

    def _text_sample(self, parts: tuple[str, ...]) -> Tensor:
        ids = [self.piece_ids(text) for text in parts]
        sample = self._join(ids)
        self.shortened += len(sample) - SPECIAL[len(parts)] < sum(map(len, ids))
        return torch.from_numpy(sample)

    def _word_samples(self, words: list[str], pending: deque) -> list[Tensor]:
        ids, starts = word_pieces(words, self.word_ids)
        starts = np.array(starts, dtype=int)
        parts = cut_at_words(starts, len(ids), self.task.max_positions() - SPECIAL[1])
        self.shortened += len(parts) > 1
        places = []
        for start, end in parts:
            within = np.flatnonzero((starts >= start) & (starts < end))
            places.append((within, starts[within] - start + 1))
        pending.append((len(words), places))
        return [torch.from_numpy(self._join([ids[start:end]])) for start, end in parts]

    def _text_rows(self, tokens: Tensor) -> np.ndarray:
        logits = self._head(tokens)
        if self.labels.objective == "classification":
            values = logits.softmax(dim=-1)
        elif self.labels.objective == "multilabel":
            values = logits.sigmoid()
        else:
            values = logits * self.labels.deviation + self.labels.mean
        return values.numpy()

    def _word_rows(self, tokens: Tensor) -> np.ndarray:
        return self._head(tokens).softmax(dim=-1).numpy()

    def piece_ids(self, text: str) -> list[int]:
        """Return a text as ids of pieces, without ``<s>`` and ``</s>``."""
        index = self.task.source_dictionary.index
        return [index(piece) for piece in self.require_pieces().encode(text).split(" ") if piece]

    def word_ids(self, word: str) -> list[int]:
        """Return a word as ids of pieces, at least one.

        A space marker that is a piece by itself, as before some punctuation, is left out, so that the first piece is
        part of the word.
        """
        pieces = self.require_pieces().encode(word).split()
        pieces = pieces[1:] if len(pieces) > 1 and pieces[0] == WORD_START else pieces
        dictionary = self.task.source_dictionary
        return [dictionary.index(piece) for piece in pieces] or [dictionary.unk()]

    def require_pieces(self):
        """Return the encoder of text.

        Raises:
            ValueError: the checkpoint came without a SentencePiece model.
        """
        if self.bpe is None:
            raise ValueError(
                "this checkpoint was trained on data without a sentencepiece.model, so text cannot be encoded: "
                "put that file beside the checkpoint, or work with ids"
            )
        return self.bpe

    def _join(self, texts: list[list[int]]) -> np.ndarray:
        dictionary = self.task.source_dictionary
        arrays = [np.array(ids, dtype=np.int64) for ids in texts]
        return join(arrays, self.task.max_positions(), dictionary.bos(), dictionary.eos())

    @torch.no_grad()
    def _head(self, tokens: Tensor) -> Tensor:
        """Return the logits of ids (b, n), in double precision on the CPU."""
        with utils.model_eval(self.model):
            tokens = tokens.to(self.device)
            logits, _ = self.model(tokens, features_only=True, classification_head_name=self.task.HEAD)
        return logits.cpu().double()


def classification(labels: Labels, row: np.ndarray) -> Classification:
    """Return the prediction that a row of :meth:`FineTuned.text_outputs` stands for."""
    if labels.objective == "regression":
        return Classification(float(row[0]), None, {})
    named = dict(zip(labels.names, row.tolist(), strict=True))
    if labels.objective == "multilabel":
        chosen = [name for name, value in named.items() if value >= 0.5]
        return Classification(chosen, min((named[n] for n in chosen), default=1 - max(named.values())), named)
    best = labels.names[int(row.argmax())]
    return Classification(best, named[best], named)
