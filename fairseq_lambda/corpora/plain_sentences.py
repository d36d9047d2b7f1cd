# ruff: noqa: RUF001 - letters and marks of other scripts are meant here
"""From paragraphs of ordinary text, in any script, to sentences.

Two kinds of marks end a sentence. Those that a script uses for nothing else (``。``, ``؟``, ``।``, ``։``) always end
one. The full stop, ``?`` and ``!`` end one if they are followed by a space and something that can start a sentence: a
capital letter, or any letter in a script or a text without capitals. Thai and Lao do not mark the ends of sentences.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from fairseq_lambda.corpora.languages import DEFAULT_LANGUAGE, Language, language_rules
from fairseq_lambda.symbols import UNK

# Unicode's Sentence_Terminal characters of living scripts, except the ASCII ones and those that are commas
_STRONG = "։؞؟۔।॥။።፧។៕᠃᠉᱾᱿꓿꘎꘏꛳꛷꣎꣏꯫。｡！？．⸮﹒﹖﹗"
_QUESTIONS = "?!‼‽⁇⁈⁉"
_WEAK = f".…{_QUESTIONS}"
_GREEK_QUESTION, _ARMENIAN_STOP = ";\u037e", ":"
_MARKS = re.compile(f"[{_STRONG}{_WEAK}]+|[{_GREEK_QUESTION}{_ARMENIAN_STOP}]")
_CLOSERS = frozenset(")]}”’」』）】》〉］｝｣〕〗〙〛")
_EITHER = frozenset("\"'“‘«‹»›")  # they open quotations in one language and close them in another
_SPACED_CLOSERS = (" »", " ›")  # as in French
_OPENERS = frozenset("([{¿¡„‚「『（【《〈［｛｢〔〖〘〚—–-") | _EITHER
_MAX_OPENERS = 8
_LONGEST_WORD = 30  # longest word that can be an abbreviation
_GOES_ON = frozenset("、，,;；:：・")  # the sentence continues if one follows a strong mark
_QUOTES_WITH_TO = frozenset("とっ")  # Japanese: 「…。」と言った
_FOOTNOTES = re.compile(r"(?:\[\w{1,3}\])+(?= |$)")
_ROMAN = re.compile(r"[IVXLC]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")


class _Mark(NamedTuple):
    """A place where a sentence may end: ``text[start:stop]`` is the mark, and closing quotes extend to ``end``."""

    start: int
    stop: int
    end: int
    following: int  # where the text continues
    first: str  # the first character there, skipping opening quotes, or <unk>; empty if there is none
    is_strong: bool


def split_plain(paragraph: str, language: str = DEFAULT_LANGUAGE) -> list[str]:
    """Return the sentences of a paragraph: its text, cut at spaces or, in scripts without spaces, between characters.

    Each run of white space becomes one space; nothing else is lost or changed. A part without a letter or a digit is
    not a sentence of its own.

    Args:
        paragraph: text in any script.
        language: the language, such as ``de``; its abbreviations and ordinal numbers do not end sentences.

    Raises:
        PrepareError: ``language`` is not a language code.
    """
    text = " ".join(paragraph.split())
    rules = language_rules(language)
    marks = list(_marks(text))
    has_capitals = _has_capitals(text, marks)
    starts = [0]
    ends: list[int] = []
    seen, has_word = 0, False
    for mark in marks:
        has_word = has_word or any(map(str.isalnum, text[seen : mark.start]))
        seen = mark.start
        if has_word and _ends(text, starts[-1], mark, rules, has_capitals):
            ends.append(mark.end)
            starts.append(mark.following)
            seen, has_word = mark.following, False
    if ends and not any(map(str.isalnum, text[starts[-1] :])):
        starts.pop()
        ends.pop()
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if text]


def _marks(text: str) -> Iterator[_Mark]:
    length, counted, is_open = len(text), 0, False
    for match in _MARKS.finditer(text):
        start, stop = match.span()
        is_strong = not set(match[0]).isdisjoint(_STRONG)
        is_open ^= text.count('"', counted, stop) % 2 == 1
        counted = end = stop
        while end < length:
            character, is_last = text[end], end + 1 == length or text[end + 1] == " "
            closes = character == '"' and is_open and end == stop
            if character not in _CLOSERS and not (character in _EITHER and (not is_strong or is_last or closes)):
                break
            end += 1
        if text.startswith(_SPACED_CLOSERS, end) and (end + 2 == length or text[end + 2] == " "):
            end += 2
        if footnotes := _FOOTNOTES.match(text, end):
            end = footnotes.end()
        following = end + (end < length and text[end] == " ")
        if following == length:
            return
        if is_strong or following > end or (_is_east_asian(text[start - 1]) and _is_east_asian(text[following])):
            yield _Mark(start, stop, end, following, _first(text, following), is_strong)


def _first(text: str, position: int) -> str:
    for offset, character in enumerate(text[position : position + _MAX_OPENERS]):
        if character == "<" and text.startswith(UNK, position + offset):
            return UNK
        if character not in _OPENERS and character != " ":
            return character
    return ""


def _has_capitals(text: str, marks: list[_Mark]) -> bool:
    """Return False for a paragraph that starts with a small letter and has no mark followed by a capital."""
    first = next((c for c in text if unicodedata.category(c) in ("Lu", "Lt", "Ll") and not _is_georgian(c)), "A")
    return not first.islower() or any(_is_capital(m.first) for m in marks)


def _ends(text: str, start: int, mark: _Mark, rules: Language, has_capitals: bool) -> bool:
    """Return whether the sentence that starts at ``start`` ends at the mark."""
    sign, first = text[mark.start : mark.stop], mark.first
    before = text[mark.start - 1 : mark.start]
    if mark.is_strong:
        is_decimal = mark.following == mark.stop and before.isdecimal() and first.isdecimal()
        quoted = mark.end > mark.stop and text[mark.following] in _QUOTES_WITH_TO
        return not (is_decimal or quoted or text[mark.following] in _GOES_ON)
    can_start = _starts_sentence(first, has_capitals)
    if sign in _GREEK_QUESTION or sign == _ARMENIAN_STOP:
        is_of_script = _is_armenian if sign == _ARMENIAN_STOP else _is_greek
        return can_start and is_of_script(first) and is_of_script(_last_letter(text, mark.start))
    if not set(sign).isdisjoint(_QUESTIONS):
        return can_start or first.isdecimal()
    if not can_start and not (_is_uncased(before) and first.isdecimal()):
        return False
    if _is_thai_or_lao(before):
        return False
    return sign != "." or mark.end > mark.stop or not _is_shortened(text, start, mark.start, rules, has_capitals)


def _is_shortened(text: str, start: int, stop: int, rules: Language, has_capitals: bool) -> bool:
    """Return whether the full stop at ``stop`` belongs to the word before it: an abbreviation, an initial, a number."""
    word = text[max(start, stop - _LONGEST_WORD) : stop].rpartition(" ")[2].lstrip("".join(_OPENERS))
    if word.isdecimal():
        is_list_item = text[start:stop].lstrip("".join(_OPENERS)) == word if stop - start <= _LONGEST_WORD else False
        return is_list_item or (rules.has_ordinals and len(word) <= 2)
    if rules.has_ordinals and _ROMAN.fullmatch(word):
        return True
    if word in rules.abbreviations:
        return True
    if not has_capitals and word in map(str.lower, rules.abbreviations):
        return True
    if len(word) == 1:
        return word.isalpha() and not _is_east_asian(word) and (not word.islower() or not has_capitals)
    return _DOTTED.fullmatch(word) is not None and (word.isupper() or not word.islower() or not has_capitals)


def _starts_sentence(character: str, has_capitals: bool) -> bool:
    if character == UNK or _is_capital(character) or _is_uncased(character):
        return True
    return not has_capitals and character.isalpha()


def _is_capital(character: str) -> bool:
    return len(character) == 1 and unicodedata.category(character) in ("Lu", "Lt")


def _last_letter(text: str, stop: int) -> str:
    return next((c for c in reversed(text[max(0, stop - _LONGEST_WORD) : stop]) if c.isalpha()), "")


def _is_uncased(character: str) -> bool:
    return len(character) == 1 and (unicodedata.category(character) == "Lo" or _is_georgian(character))


def _is_georgian(character: str) -> bool:
    """Return whether a letter is Georgian: these have capitals in Unicode, but sentences do not start with them."""
    return "\u10d0" <= character <= "\u10ff"


def _is_greek(character: str) -> bool:
    return "\u0370" <= character <= "\u03ff" or "\u1f00" <= character <= "\u1fff"


def _is_armenian(character: str) -> bool:
    return "\u0531" <= character <= "\u0587"


def _is_thai_or_lao(character: str) -> bool:
    return "\u0e00" <= character <= "\u0eff"


def _is_east_asian(character: str) -> bool:
    return "\u3040" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3"
