"""Both spellings of a pattern, and the errors of invalid ones."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.model.bindings import DataFields, Source
from shared.model.errors import Invalid
from shared.model.sessions import SessionBinding
from shared.wire.cognism.patterns import MAX_LENGTH, MAX_VALUES, parse_pattern
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns
from tests.model.single import matches_data

JOIN = {"type": "job-join", "org": "IBM (Contract)", "employee": {"title": "CTO"}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        ('{"type":"310","org":"IBM"}', {"type": ["310"], "org": ["IBM"]}),
        ('{"type": 310, "hot": true, "score": 0.5}', {"type": ["310"], "hot": ["true"], "score": ["0.5"]}),
        (' {"type": ["job-join", 330, false]} ', {"type": ["job-join", "330", "false"]}),
        ('{"employee.title": "a|b;c=d"}', {"employee.title": ["a|b;c=d"]}),
        ('{"org": ""}', {"org": [""]}),
        ("type=job-join|job-leave;org=IBM;", {"type": ["job-join", "job-leave"], "org": ["IBM"]}),
        ("org=IBM;", {"org": ["IBM"]}),
        ("org=IBM", {"org": ["IBM"]}),
        ("employee.title=CTO", {"employee.title": ["CTO"]}),
        ("org=IBM (Contract)", {"org": ["IBM (Contract)"]}),
        (" type = job-join | job-leave ; org = IBM ; ", {"type": ["job-join", "job-leave"], "org": ["IBM"]}),
        ("url=https://a/?b=c", {"url": ["https://a/?b=c"]}),
        ("org=*BM*|é", {"org": ["*BM*", "é"]}),
        ("org=valuelist", {"org": ["valuelist"]}),
    ],
)
def test_parse_pattern(text: str, wanted: dict[str, list[str]]) -> None:
    expected = DataFields(tuple((path, tuple(values)) for path, values in wanted.items()))

    assert parse_pattern(text) == expected


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("{pattern}", "pattern", "is not JSON"),
        ('{"type":"310"', "pattern", "line 1 column 14"),
        ('{"type":"310"}}', "pattern", "is not JSON"),
        ('{"type":NaN}', "pattern", "is not JSON"),
        ('{"type":"\\ud800"}', "pattern", "is not JSON"),
        ('{"type":null}', "pattern.type", "must be a string"),
        ('{"type":{"eq":"310"}}', "pattern.type", "must be a string"),
        ('{"type":[]}', "pattern.type", "at least one value"),
        ('{"type":["310",null]}', "pattern.type[1]", "must be a string"),
        ('{"type":["310",["330"]]}', "pattern.type[1]", "must be a string"),
        ('{"":"310"}', "pattern", "empty name in the path ''"),
        ('{"a..b":"310"}', "pattern", "empty name in the path 'a..b'"),
        ('{"org":"valuelist(top-100)"}', "pattern.org", "stored list"),
        ("type", "pattern", "needs path=value at character 1"),
        ('["310"]', "pattern", "needs path=value at character 1"),
        ("type=310;org", "pattern", "needs path=value at character 10"),
        ("type=310;;org=IBM", "pattern", "needs path=value at character 10"),
        (";", "pattern", "needs path=value at character 1"),
        ("type=310; ;", "pattern", "needs path=value at character 11"),
        ("=310", "pattern", "empty name in the path '' at character 1"),
        ("type=310;.org=IBM", "pattern", "empty name in the path '.org' at character 10"),
        ("org.=IBM", "pattern", "empty name in the path 'org.' at character 1"),
        ("org=", "pattern", "lacks a value at character 5"),
        ("org=;type=310", "pattern", "lacks a value at character 5"),
        ("org=IBM||Apple", "pattern", "lacks a value at character 9"),
        ("org=IBM | ", "pattern", "lacks a value at character 10"),
        ("type=310;org=IBM|valuelist(top)", "pattern", "stored list at character 18"),
        ("type=310;type=330", "pattern", "names type twice at character 10"),
        ("org=IBM\udcff", "pattern", "not UTF-8 at character 8"),
        ("org=" + "x" * MAX_LENGTH, "pattern", "characters"),
        ("x" * 256 + "=1", "pattern", "over 255 characters"),
        ("org=" + "|".join("x" * (MAX_VALUES + 1)), "pattern", f"more than {MAX_VALUES}"),
        (";".join(f"f{n}=1" for n in range(MAX_VALUES + 1)), "pattern", f"more than {MAX_VALUES}"),
    ],
)
def test_errors_name_the_rule_and_the_position(text: str, field: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_pattern(text)

    assert [name for name, _ in raised.value.fields] == [field]
    assert message in raised.value.message


def test_limits() -> None:
    [(path, values)] = parse_pattern("x" * 255 + "=" + "|".join("x" * MAX_VALUES)).wanted

    assert (len(path), len(values)) == (255, MAX_VALUES)


@pytest.mark.parametrize("text", ['{"type":["job-join","job-leave"],"org":"IBM*"}', "type=job-*;org=IBM*"])
def test_pattern_matches_after_storing(text: str) -> None:
    wanted = [SessionBinding(account="a", requested=text, pattern=parse_pattern(text))]

    [pattern] = compiled(Source.SESSION, encode_patterns(wanted))

    assert isinstance(pattern, DataFields)
    assert matches_data(pattern, JOIN)
    assert not matches_data(pattern, {**JOIN, "org": "Apple"})


VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = st.text("abcö-_(). *", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=4), max_size=4))
def test_json_accepts_all_strings(wanted: dict[str, list[str]]) -> None:
    expected = DataFields(tuple((path, tuple(values)) for path, values in wanted.items()))

    assert parse_pattern(json.dumps(wanted)) == expected


@given(
    st.dictionaries(st.sampled_from(["a", "b.c", "d"]), st.lists(PLAIN, min_size=1, max_size=4), min_size=1)
)
def test_rule_equals_the_same_json(wanted: dict[str, list[str]]) -> None:
    rule = ";".join(f"{path}={'|'.join(values)}" for path, values in wanted.items())

    assert parse_pattern(rule) == parse_pattern(json.dumps(wanted))


FRAGMENTS = st.sampled_from(
    ['{"', '"}', '":', '"', "[", "]", "{", "}", ",", ";", "|", "=", ".", "*", "valuelist(", ")", "\\u", " "]
)
WORDS = st.sampled_from(["org", "IBM", "310", "true", "\ud800", "\x00"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a.*", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a.", max_size=3), inner, max_size=3),
    max_leaves=6,
)
HOSTILE = {
    "any text": st.text(st.characters(exclude_categories=[]), max_size=20),
    "pieces of both spellings": st.lists(FRAGMENTS | WORDS, max_size=20).map("".join),
    "rules": st.lists(WORDS | st.sampled_from(list("=;|.* ")), max_size=20).map("".join),
    "any JSON": JSON.map(json.dumps),
}


@pytest.mark.parametrize("kind", HOSTILE)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_text_is_a_pattern_or_invalid(kind: str, data: st.DataObject) -> None:
    text = data.draw(HOSTILE[kind])
    try:
        pattern = parse_pattern(text)
    except Invalid as error:
        # The response contains it.
        error.message.encode()
    else:
        stored = encode_patterns([SessionBinding(account="a", requested=text, pattern=pattern)])
        assert compiled(Source.SESSION, stored) == (pattern,)
        matches_data(pattern, JOIN)


@pytest.mark.parametrize("text", ["[" * MAX_LENGTH, '{"a":' * 3000, ";" * MAX_LENGTH, "a=" + "|" * 16_000])
def test_long_invalid_texts_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_pattern(text)
