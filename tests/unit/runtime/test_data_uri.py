"""Data URIs as browsers read them, and as shells, MIME, forms and other programs write them."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.files import data_uri as data_uri_module
from runtime.files.data_uri import DataUriError, bare_base64_hint, is_data_uri, parse_data_uri
from tests.unit.runtime.cpu_time import least_cpu_seconds

HEAD = "data:image/png;base64,"
CONTENT = bytes(range(256)) * 3 + b"\xfb\xef\xbe\xff"  # its base64 has "+" and "/", and is padded
ENCODED = base64.b64encode(CONTENT).decode()
assert "+" in ENCODED and "/" in ENCODED and ENCODED.endswith("=")


def read(value: str) -> bytes:
    """The first reading."""
    uri = parse_data_uri(value)
    return b"".join(uri.chunks(uri.readings()[0]))


def _wrapped(width: int, end: str) -> str:
    return end.join(textwrap.wrap(ENCODED, width))


FORMS = {
    "plain": HEAD + ENCODED,
    "lines of 76 (GNU base64)": HEAD + _wrapped(76, "\n") + "\n",
    "lines of 64 (PEM)": HEAD + "\n" + _wrapped(64, "\n") + "\n",
    "CR LF (MIME)": HEAD + _wrapped(76, "\r\n") + "\r\n",
    "indented lines (YAML)": HEAD + "\n  " + _wrapped(76, "\n  "),
    "tabs and form feeds": HEAD + _wrapped(10, "\t\f"),
    "line breaks that became spaces": HEAD + _wrapped(76, " "),
    "space after the comma": HEAD + " " + ENCODED,
    "no padding": HEAD + ENCODED.rstrip("="),
    "space before the padding": HEAD + ENCODED.replace("=", " ="),
    "base64url": HEAD + ENCODED.replace("+", "-").replace("/", "_"),
    "base64url, no padding": HEAD + base64.urlsafe_b64encode(CONTENT).decode().rstrip("="),
    "base64url in lines": HEAD + _wrapped(76, " ").replace("+", "-").replace("/", "_"),
    "+ became space": HEAD + ENCODED.replace("+", " "),
    "+ became space in lines": HEAD + _wrapped(76, "\r\n").replace("+", " "),
    "+ became space, no padding": HEAD + ENCODED.replace("+", " ").rstrip("="),
    "percent-encoded": HEAD + quote(ENCODED, safe=""),
    "percent-encoded line breaks": HEAD + quote(_wrapped(76, "\r\n")),
    "every character percent-encoded": HEAD + "".join(f"%{ord(char):02x}" for char in ENCODED),
    "upper case": HEAD.upper() + ENCODED,
    ";BASE64": "data:image/png;BASE64," + ENCODED,
    "charset": "data:image/png;charset=utf-8;base64," + ENCODED,
    "a file name": "data:image/png;name=my picture.png;base64," + ENCODED,
    "parameter after base64": "data:image/png;base64;charset=utf-8," + ENCODED,
    "spaces in the head": "data: image/png ; base64 ," + ENCODED,
    "no media type": "data:;base64," + ENCODED,
    "fragment": HEAD + ENCODED + "#page",
    "not base64": "data:application/octet-stream," + quote_from_bytes(CONTENT),
    "not base64, fragment": "data:," + quote_from_bytes(CONTENT) + "#a,b",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_bytes(form: str) -> None:
    assert is_data_uri(FORMS[form])
    assert read(FORMS[form]) == CONTENT


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("form", FORMS)
def test_blocks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, form: str, block: int) -> None:
    monkeypatch.setattr(data_uri_module, "_BLOCK", block)
    assert read(FORMS[form]) == CONTENT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data:,a+b c", b"a+b c"),
        ("data:,", b""),
        ("data:;base64,", b""),
        ("data:text/plain,%", b"%"),
        ("data:text/plain,%4", b"%4"),
        ("data:text/plain,%4x%41%%41", b"%4xA%A"),
        ("data:text/plain,ñ", "ñ".encode()),
        ("data:;base64x,YQ==", b"YQ=="),
        ("data:base64,YQ==", b"YQ=="),  # a media type, no parameter
        ("data:;base64,YQ", b"a"),
        ("data:;base64,YQ=", b"a"),
        ("data:;base64,YR==", b"a"),  # left-over bits are ignored, as in browsers
        ("data:;base64,Y Q = =", b"a"),
    ],
)
def test_short_ones(value: str, expected: bytes) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64", "must have a comma"),
        ("data:" + "x" * 5000 + ",a", "must have a comma"),
        (HEAD + "A", "a part of it is missing"),
        (HEAD + "AAAAA", "a part of it is missing"),
        (HEAD + "AAAAA===", "a part of it is missing"),
        (HEAD + "AA$A", r"it contains '\$'"),
        (HEAD + "äöü=", "not valid base64"),
        (HEAD + "AA==AA", "not valid base64"),
        (HEAD + "=AAA", "not valid base64"),
        (HEAD + "A=AA", "not valid base64"),
        (HEAD + "AA%zAA", "it contains '%'"),
        (HEAD + "AAAA\ud800", "not valid Unicode"),
        (HEAD + "AA\x00A", "not valid base64"),
    ],
)
def test_a_damaged_one_is_refused(value: str, reason: str) -> None:
    with pytest.raises(DataUriError, match=reason):
        read(value)


def _python(value: str) -> bytes | None:
    """What Python's base64 makes of a text after white space and padding are normalised; None: it is refused."""
    letters = "".join(value.translate({ord(char): None for char in " \t\n\r\f"}).split("="))
    letters = letters.replace("-", "+").replace("_", "/")
    return None if len(letters) % 4 == 1 else base64.b64decode(letters + "=" * (-len(letters) % 4))


_ENCODERS: list[Callable[[bytes], bytes]] = [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]


@given(st.binary(min_size=1, max_size=300), st.sampled_from(_ENCODERS), st.booleans(), st.data())
def test_white_space_anywhere_and_any_padding(
    content: bytes, encode: Callable[[bytes], bytes], padded: bool, data: st.DataObject
) -> None:
    text = encode(content).decode()
    text = text if padded else text.strip().rstrip("=")
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(st.sampled_from(["\n", "\r\n", "\t", "\f"])) + text[place:]
    assert read(HEAD + text) == content == _python(text)


@given(st.text("AZaz09+/-_ \n=", max_size=40))
def test_python_reads_the_same(text: str) -> None:
    """Text with spaces only where they cannot have been "+", and "=" only at its end."""
    body = text.rstrip("= \n").replace("=", "") + "+AAA"
    expected = _python(body)
    if expected is None:
        with pytest.raises(DataUriError):
            read(HEAD + body)
    else:
        assert read(HEAD + body) == expected


@given(st.binary(min_size=1, max_size=400), st.booleans())
def test_a_plus_that_became_a_space_is_one_of_the_readings(content: bytes, padded: bool) -> None:
    text = base64.b64encode(content).decode()
    text = (text if padded else text.rstrip("=")).replace("+", " ").strip()
    uri = parse_data_uri(HEAD + text)
    # A space at an end is white space: nothing shows that it was a "+".
    assume(len(text.rstrip("=")) % 4 != 1)
    expected = base64.b64decode(text.replace(" ", "+") + "=" * 2)
    assert expected in [b"".join(uri.chunks(reading)) for reading in uri.readings()]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for head in (HEAD, "data:,"):
        uri = parse_data_uri(head + text)
        for reading in uri.readings():
            try:
                b"".join(uri.chunks(reading))
            except DataUriError as error:
                assert str(error).isprintable()


@given(st.binary(max_size=300))
def test_percent_encoding_comes_back(content: bytes) -> None:
    assert read("data:," + quote_from_bytes(content)) == content
    assert read("data:," + "".join(f"%{byte:02X}" for byte in content)) == content


BARE = {
    "iVBORw0KGgoAAAANSUhEUg" * 10: "data:image/png;base64,iVBORw0K",
    "/9j/4AAQSkZJRgABAQ" * 10: "data:image/jpeg;base64,/9j/4AAQ",
    "UklGRiIAAABXRUJQVlA4" * 10: "data:image/webp;base64,UklGRiIA",
    "R0lGODlhAQABAIAAAP" * 10: "data:image/gif;base64,R0lGODlh",
    "iVBORw0KGgoAAAANSUhEUg\n" * 10: "data:image/png;base64,iVBORw0K",
    "QUJD" * 2000: "data:application/octet-stream;base64,QUJDQUJD",
    "image/png;base64,iVBORw0KGgo=": "it lacks the beginning of a data URI",
    "base64,iVBORw0KGgo=": "it lacks the beginning of a data URI",
    ";base64,iVBORw0KGgo=": "it lacks the beginning of a data URI",
    "image/png;charset=utf-8;BASE64,iVBORw0KGgo=": "it lacks the beginning of a data URI",
}


@pytest.mark.parametrize("value", BARE)
def test_bare_base64_is_told_how_to_be_a_data_uri(value: str) -> None:
    hint = bare_base64_hint(value)
    assert hint is not None and BARE[value] in hint and len(hint) < 200


@pytest.mark.parametrize(
    "value",
    ["", "owner/name", "models/sd15/lora.safetensors", "a" * 63, "iVBORw0KGgo", "x" * 200, "a.b" * 200, "ü" * 300],
)
def test_other_names_are_no_base64(value: str) -> None:
    assert bare_base64_hint(value) is None


@pytest.mark.parametrize("value", ["a=" * 2000, "a/" * 2000, ";a=a" * 1000, "=" * 4000, "/" * 4000])
def test_no_text_takes_long(value: str) -> None:
    assert least_cpu_seconds(lambda: bare_base64_hint(value)) < 1


@pytest.mark.parametrize("damage", [str, lambda text: text.replace("+", " "), lambda text: quote(text, safe="")])
def test_a_large_one_is_read_in_a_moment(damage: Callable[[str], str]) -> None:
    content = bytes(range(251)) * 40_000
    value = HEAD + damage(base64.b64encode(content).decode())
    assert read(value) == content
    assert least_cpu_seconds(lambda: read(value)) < 3
