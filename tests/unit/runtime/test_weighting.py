"""The grammar of weights in prompts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorikeet.schema import ImageToImageInput
from runtime.prompts.weighting import MAX_WEIGHT, PromptError, WeightedText, parse_weights
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare import prompts
from tests.unit.runtime.cpu_time import least_cpu_seconds

Parsed = list[list[tuple[str, float]]]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", [[]]),
        ("a red fish", [[("a red fish", 1)]]),
        ("a (red) fish", [[("a ", 1), ("red", 1.1), (" fish", 1)]]),
        ("a [red] fish", [[("a ", 1), ("red", 1 / 1.1), (" fish", 1)]]),
        ("((red))", [[("red", 1.1**2)]]),
        ("[(red)]", [[("red", 1)]]),
        ("(red:1.3)", [[("red", 1.3)]]),
        ("(red: 1.3 )", [[("red", 1.3)]]),
        ("(red:.5)", [[("red", 0.5)]]),
        ("(red:2.)", [[("red", 2)]]),
        ("(red:-1)", [[("red", -1)]]),
        ("(red:+0)", [[("red", 0)]]),
        ("(a (red:1.5) fish:1.2)", [[("a ", 1.2), ("red", 1.8), (" fish", 1.2)]]),
        ("(a [b (c:2)]:1.5)", [[("a ", 1.5), ("b ", 1.5 / 1.1), ("c", 3 / 1.1)]]),
        ("(one:1.2)(two:1.2)", [[("onetwo", 1.2)]]),
        ("a()b[]c", [[("abc", 1)]]),
        ("(:1.5)", [[]]),
        ("12:30, (at 12:30)", [[("12:30, ", 1), ("at 12", 30)]]),
        ("(a:b)", [[("a:b", 1.1)]]),
        ("[a:0.5]", [[("a:0.5", 1 / 1.1)]]),
        ("a:1.3", [[("a:1.3", 1)]]),
        (r"a \(red\) fish", [[("a (red) fish", 1)]]),
        (r"\[a\]", [[("[a]", 1)]]),
        (r"(a\):1.3)", [[("a)", 1.3)]]),
        (r"(a\:1.3)", [[("a:1.3", 1.1)]]),
        (r"a\\", [[("a\\", 1)]]),
        ("a\\", [[("a", 1)]]),
        (r"\a", [[("a", 1)]]),
        ("a BREAK b", [[("a ", 1)], [(" b", 1)]]),
        ("BREAK", [[], []]),
        ("a BREAK BREAK b", [[("a ", 1)], [(" ", 1)], [(" b", 1)]]),
        ("BREAKFAST, xBREAK, break", [[("BREAKFAST, xBREAK, break", 1)]]),
        (r"\BREAK", [[("BREAK", 1)]]),
        ("(a BREAK b:1.5)", [[("a ", 1.5)], [(" b", 1.5)]]),
        ("(日本:1.2) 🌸", [[("日本", 1.2), (" 🌸", 1)]]),
        ("a\n(b\n:1.2)", [[("a\n", 1), ("b\n", 1.2)]]),
    ],
)
def test_the_grammar(prompt: str, parts: Parsed) -> None:
    found = parse_weights(prompt)
    assert [[text for text, _ in part] for part in found] == [[text for text, _ in part] for part in parts]
    weights = [weight for part in found for _, weight in part]
    assert weights == pytest.approx([weight for part in parts for _, weight in part])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "a (red fish",
            "'(' at character 3 (in 'a (red fish') has no counterpart: add it, or write '\\(' for plain text",
        ),
        ("((a)", "'(' at character 1 (in '((a)') has no counterpart"),
        ("[a", "'[' at character 1 (in '[a') has no counterpart"),
        ("a) fish", "')' at character 2 (in 'a) fish') has no counterpart"),
        ("(a] fish)", "']' at character 3 (in '(a] fish)') has no counterpart"),
        ("([a)]", "')' at character 4 (in '([a)]') has no counterpart"),
        ("[a:1.3)", "')' at character 7 (in '[a:1.3)') has no counterpart"),
        ("a:1.3)", "')' at character 6 (in 'a:1.3)') has no counterpart"),
        ("hello :)", "')' at character 8 (in 'hello :)') has no counterpart"),
        ("x" * 100 + "(" + "y" * 100, "'(' at character 101 (in '..." + "x" * 20 + "(" + "y" * 19 + "...')"),
        ("(a:1.2.3)", "the weight '1.2.3' at character 4 (in '(a:1.2.3)') is not a number: expected one such as 1.3"),
        ("(a:1,3)", "the weight '1,3' at character 4 "),
        ("(a:.)", "the weight '.' at character 4 "),
        ("(a:101)", "the weight of the bracket at character 1 (in '(a:101)') is 101: expected at most 100"),
        ("(a:-1000)", "is -1e+03: expected at most 100"),
        ("((a:20):20)", "the weight of the bracket at character 2 (in '((a:20):20)') is 400: "),
        ("(a:" + "9" * 400 + ")", "is inf: expected at most 100"),
        ("(" * 100 + "a" + ")" * 100, "the weight of the bracket at character 49 "),
    ],
)
def test_what_cannot_be_read_is_shown_at_its_place(prompt: str, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_weights(prompt)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text("()[]:.1,\\ aBREAK\n", max_size=200) | st.text(max_size=100))
def test_any_prompt_is_read_or_refused(prompt: str) -> None:
    try:
        parts = parse_weights(prompt)
    except PromptError as error:
        assert "at character " in str(error)
        return
    texts = [text for part in parts for text in part]
    assert all(text.text and abs(text.weight) <= MAX_WEIGHT for text in texts)
    assert sum(len(text.text) for text in texts) <= len(prompt)


_LEAVES = st.tuples(st.text("ab ():[]\\日", min_size=1, max_size=5), st.just(1.0)).map(
    lambda leaf: [WeightedText(*leaf)]
)


def _nested(inner: Any) -> Any:
    """Lists of texts, all weights multiplied by a number."""
    factors = st.integers(-40, 40).map(lambda tenth: tenth / 10)
    lists = st.lists(inner, min_size=1, max_size=3).map(lambda found: [text for part in found for text in part])
    return st.tuples(lists, factors).map(lambda pair: [WeightedText(text, w * pair[1]) for text, w in pair[0]])


@given(st.lists(st.recursive(_LEAVES, _nested, max_leaves=12), min_size=1, max_size=3))
def test_weights_are_read_as_they_are_written(parts: list[list[WeightedText]]) -> None:
    """Each text in brackets of its own; neighbours of equal weight are one text when they are read."""
    written = " BREAK ".join("".join(f"({_escaped(text)}:{weight!r})" for text, weight in part) for part in parts)
    found = [
        [(text, weight) for text, weight in part if text.strip() or weight != 1.0] for part in parse_weights(written)
    ]
    expected: Parsed = []
    for part in parts:
        merged: list[tuple[str, float]] = []
        for text, weight in part:
            if merged and merged[-1][1] == weight:
                merged[-1] = (merged[-1][0] + text, weight)
            else:
                merged.append((text, weight))
        expected.append(merged)
    assert [_joined(part) for part in found] == [_joined(part) for part in expected]


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "()[]:\\" else char for char in text)


def _joined(part: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Without texts of white space, which have no tokens."""
    return [(text.strip(), weight) for text, weight in part if text.strip()]


@pytest.mark.parametrize(
    "piece", ["(", "()", "[", ":", ":1", "(a:1)", "((", " ", "\\", "B", "BREAK ", ": ", "1.", "(:"]
)
def test_a_long_prompt_is_read_in_linear_time(piece: str) -> None:
    prompt = (piece * 10_000)[:10_000]

    def read() -> None:
        try:
            parse_weights(prompt)
        except PromptError:
            return

    assert least_cpu_seconds(read) < 0.5


def test_5000_nested_brackets_are_read() -> None:
    prompt = "([" * 2500 + "a" + "])" * 2500
    ((text,),) = parse_weights(prompt)
    assert text.text == "a" and text.weight == pytest.approx(1.0)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_prepare_refuses_a_prompt_by_its_field(field: str) -> None:
    def request(**fields: Any) -> ImageToImageInput:
        return ImageToImageInput.model_validate({"model_name": "m", "prompt": "p", field: "(a", **fields})

    prompts.check(request())
    with pytest.raises(InvalidArgument, match=rf"^{field}: '\(' at character 1 "):
        prompts.check(request(prompt_weighting=True))


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("[cat:dog:0.5]", "'[cat:dog:0.5]' is"),
        ("[dog:10]", "'[dog:10]' is"),
        ("[cat|dog], [a|b|c]", "'[cat|dog]', '[a|b|c]' are"),
        ("[cat, (dog:1.2)]", None),
        (r"\[cat|dog\]", None),
        ("[cat]", None),
    ],
)
def test_prompt_editing_is_a_warning(prompt: str, shown: str | None) -> None:
    fields = {"model_name": "m", "prompt": prompt, "prompt_weighting": True}
    expected = f"prompt: {shown} read as text of less weight; prompt editing is not supported"
    assert prompts.warnings(ImageToImageInput.model_validate(fields)) == ([expected] if shown else [])
