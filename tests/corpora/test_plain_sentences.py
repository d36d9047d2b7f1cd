# ruff: noqa: RUF001 - letters and marks of other scripts are meant here
"""Sentences of ordinary text in many languages."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.plain_sentences import split_plain

# "|" marks the end of a sentence; there is no space in languages that do not use one
DIVIDED = {
    "Chinese": "昨天上午3开展行动。|执法人员觉得蹊跷！|院内发现原料？|“走吧。”|他说。|“不。”",
    "Chinese with ASCII marks": "价格是3.5元.|他买了!|她走了?|好的。",
    "straight quotes without spaces": '他说。|"走吧。"|她走了。',
    "Japanese": "吾輩は猫である。|名前はまだ無い。|「見当がつかぬ。」と言った。|「行こう。」|彼は行った。",
    "full-width decimals": "値は３．５です。|次は（終わり。）|四です。",
    "Korean": '나는 시장에 3 갔다. |빵을 샀다. |3명이 왔다. |"가자." |그는 집에 왔다.',
    "Korean of one syllable": "네. |알겠습니다.",
    "Arabic": "ذهبت إلى 3 السوق. |هل اشتريت الخبز؟ |قال د. محمد: «اذهب.» |ثم ذهب.",
    "Urdu": "وہ گھر گیا۔ |وہ وہاں رہی۔",
    "Hindi": "मैं 3 बाज़ार गया। |मैंने रोटी खरीदी॥ |वह घर आया।",
    "Spanish": "¿Qué compraste 3? |¡Nada de nada! |—¿Y mañana?",
    "lower case": 'he went home 3. |she met dr. smith of the u.s. army, e.g. then. |why? |he said "go." |they met.',
    "Hebrew": "הלכתי הביתה 3. |היא נשארה שם. |הם נפגשו שוב?",
    "Armenian": "Ես գնացի տուն 3։ |Նա մնաց այնտեղ: |Նրանք հանդիպեցին։",
    "Georgian": "მე სახლში წავედი 3. |ის იქ დარჩა. |ისინი NATO-ში შეხვდნენ.",
    "Greek": "Πού πας 3; |Πήγα σπίτι· έμεινα. |Γιατί\u037e |«Έλα.» |Ήρθε.",
    "Russian": "Он пошёл домой 3. |Она осталась… |Почему?",
    "Amharic": "እሱ ሄደ። |እሷ ቀረች።",
    "Burmese": "သူအိမ်ပြန်သွားသည်။|သူမနေခဲ့သည်။",
    "Thai, which marks no ends": "เขาเกิดเมื่อ พ.ศ. ๒๕๐๐ ดร. สมชาย ไปตลาด เธออยู่ที่นั่น",
    "quotes of French": "« Je pars. » |Il partit. |« Va ! » dit-elle. |Il dit : « Oui. » |Puis rien.",
    "quotes of German": "„Ich gehe.“ |Sie blieb. |»Komm!« |Er kam. |‚Nein.‘ |Sie ging. |„Geh!“, sagte er. |Aus.",
    "English": "He went home 3. |They met Dr. Smith of the U.S. Army. |Brig. Gen. J. R. Fox won Brown v. Board. |Who?",
    "English quotes": 'He said "Go." |(She did.) |“No!” |‘Yes.’ |"Who?" asked he. |It ended... |"A new one" began.',
    "footnotes": "It rained.[3] |“We left.”[12][a] |He wrote “[sic]” there. |[Then] he left.",
    "numbers": "about 3.5 m. of it, 1.5 in all. |Why? |25 came! |9 left. 91 people stayed. |In 1999. |They knew.",
    "number of a list item": "1. First it rained. |Then it did not.",
    "semicolons and colons of others": "It is so; They know: He said. |Über Α; Ja.",
    "unknown words": "It was. |<unk> came to <unk>. |“<unk> left.”",
    "unknown words in lower case": "it was. |<unk> came to <unk>. |they left.",
    "no words": "... ! Yes. |No. \u2026 \u3002\u3002",
    "German": (
        "de",
        "Am 3. Oktober kam Dr. Meier, z. B. Anna. |Der 2. Weltkrieg begann 1939. |König Friedrich II. Von Hr. Fux.",
    ),
    "French": ("fr", "Mme. Curie et M. Dupont sont là. |Oui."),
    "Russian abbreviations": ("ru", "Это г. Москва и ул. Мира. |Да."),
    "Czech by region": ("cs-CZ", "Dne 3. Října. |Ano."),
}


def without_spaces(text):
    return "".join(text.split())


@pytest.mark.parametrize("case", DIVIDED)
def test_each_sentence_is_found(case):
    language, divided = DIVIDED[case] if isinstance(DIVIDED[case], tuple) else ("en", DIVIDED[case])
    assert split_plain(divided.replace("|", ""), language) == [part.strip() for part in divided.split("|")]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=4), st.sampled_from([*"aBЯש漢가3.?!。؟।;:…\"'“”«»「」()（） \u200c\u3000", ". ", "」と"])
        )
    ),
    st.sampled_from(["en", "de", "xx"]),
)
def test_no_character_is_lost_or_changed(parts, language):
    text = "".join(parts)
    sentences = split_plain(text, language)
    rest = " ".join(text.split())
    for sentence in sentences:  # in order, with only a space between two
        assert rest.removeprefix(" ").startswith(sentence) and sentence == sentence.strip()
        rest = rest.removeprefix(" ")[len(sentence) :]
    assert not rest
    if any(map(str.isalnum, text)):
        assert all(any(map(str.isalnum, sentence)) for sentence in sentences)


@given(st.lists(st.sampled_from([c for c in map(chr, range(0x250)) if unicodedata.category(c) == "Lu"]), min_size=1))
def test_sentences_of_capitalised_words_are_counted(initials):
    assert len(split_plain(" ".join(f"{initial}and it ended 3." for initial in initials))) == len(initials)


@pytest.mark.parametrize("code", ["", "e", "german", "d3", "en de"])
def test_a_language_is_named_by_its_code(code):
    with pytest.raises(PrepareError, match="--language .* two or three letters"):
        split_plain("A.", code)
