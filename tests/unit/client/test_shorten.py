"""Error messages bound the length of names and lists."""

from __future__ import annotations

import pytest

from lorikeet.protocol.shorten import listed, shorten


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("abcde", "abcde"),
        ("abcdef", "ab..."),
        ("x" * 1_000_000, "xx..."),
        ("a\nb", r"a\nb"),
        ("\0\0", r"\x..."),
        ("é 青", "é 青"),
        ("a\ud800", r"a\..."),
    ],
)
def test_text_is_cut_to_its_bound(text: str, expected: str) -> None:
    assert shorten(text, 5) == expected


def test_text_of_exactly_the_default_bound_stays() -> None:
    assert shorten("x" * 200) == "x" * 200
    assert shorten("x" * 201) == "x" * 197 + "..."


def test_list_names_the_first_and_counts_the_others() -> None:
    assert listed([]) == ""
    assert listed(["a"], 2) == "a"
    assert listed(["a", "b"], 2) == "a, b"
    assert listed((name for name in "abcde"), 2) == "a, b and 3 more"


def test_each_name_of_a_list_is_shortened() -> None:
    assert listed(["a" * 200, "b"], longest=5) == "aa..., b"
