# ruff: noqa: RUF001 - letters and marks of other scripts are meant here
"""What a full stop may mean in a language besides the end of a sentence: abbreviations and ordinal numbers."""

import functools
import re
from dataclasses import dataclass

from fairseq_lambda.corpora.errors import PrepareError

DEFAULT_LANGUAGE = "en"

# Words that come before a full stop and are followed by a name or a noun. Words that also end sentences (etc, Inc) are
# left out, and so are words that come before a number (vol, fig): a number never starts a sentence after a full stop.
_COMMON = "Dr Prof St vs ca cf"
_ABBREVIATIONS = {
    "en": "Mr Mrs Ms Messrs Mme Mlle Rev Fr Hon Gen Brig Maj Col Lt Capt Cmdr Adm Sgt Cpl Pvt Gov Sen Rep Pres Supt "
    "Mt Ft approx c v e.g i.e",
    "de": "Hr Hrn Fr Frl Dipl Ing Nr Str bzw evtl ggf vgl bes Bd Abb Hrsg geb gest sog inkl Mio Mrd Jh hl Chr Jan Feb "
    "Aug Sept Okt Nov Dez z B d h u a o s v n z.B d.h u.a i.d.R v.a",
    "fr": "M MM Mme Mmes Mlle Me Mgr Ste av apr env chap art p.ex",
    "es": "Sr Sra Sres Srta Dra D Dña Ud Uds EE UU Gral Cap Sto Sta Av Avda pág art p.ej",
    "pt": "Sr Sra Dra Profa D Exmo Exma Gen Av art pág",
    "it": "Sig Sigg Sig.ra Dott Dott.ssa Prof.ssa Ing Avv On Gen Col art pag",
    "nl": "dhr mevr mr drs ir ing bijv nr St blz o.a d.w.z",
    "sv": "t.ex bl.a s.k f.d nr kl St",
    "da": "f.eks bl.a nr kl hr fr Skt",
    "no": "f.eks bl.a nr kl hr fr",
    "fi": "esim ym mm nk prof tri t.s",
    "pl": "prof dr św ul im gen płk kpt np tzw tj m in inż mgr godz r",
    "cs": "např tzv tj sv ul prof dr ing mgr gen č str r",
    "ru": "г гг им ул т д е п н э проф акад стр св руб тыс млн млрд см напр т.е т.д",
    "uk": "м ім вул т д проф акад див напр тис млн грн",
    "el": "κ κα π χ δρ καθ αγ π.χ δηλ",
    "tr": "Sn Av Doç Yrd Cad Sok vb bkz",
}
_SAME = {"nb": "no", "nn": "no", "sk": "cs"}
# "3. Oktober": a full stop after a number makes it an ordinal
_WITH_ORDINALS = frozenset("bs cs da de et fi fo hr hu is lb lt lv nb nn no pl se sk sl sq sr tr".split())


@dataclass(frozen=True)
class Language:
    """The words that a full stop abbreviates, and whether a full stop turns a number into an ordinal."""

    abbreviations: frozenset[str]
    has_ordinals: bool


@functools.cache
def language_rules(code: str) -> Language:
    """Return the rules of a language; one without its own table gets a few titles that many languages share.

    Args:
        code: two or three letters, such as ``de``; anything after a hyphen, as in ``de-AT``, is ignored.

    Raises:
        PrepareError: ``code`` is not of that form.
    """
    match = re.fullmatch(r"([a-z]{2,3})(?:[-_]\w+)*", code, re.IGNORECASE)
    if match is None:
        raise PrepareError(f"--language {code!r} is not a language code: give two or three letters, such as en or de")
    base = match[1].lower()
    words = _ABBREVIATIONS.get(_SAME.get(base, base), "")
    return Language(frozenset(f"{_COMMON} {words}".split()), base in _WITH_ORDINALS)
