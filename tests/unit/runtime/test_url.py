"""URLs as browsers read them: what is percent-encoded, what a redirect leads to, and what no URL is."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from lorikeet.net.url import RefusedUrlError, UrlError, parse_url, redirect_target

# From the WHATWG's own tests (web-platform-tests, url/resources/urltestdata.json), and what browsers show.
PARSED = {
    "https://h/a b": "https://h/a%20b",
    "https://h/a%20b": "https://h/a%20b",
    "https://h/100%.png": "https://h/100%.png",
    "https://h/%zz%66%6f%6F": "https://h/%zz%66%6f%6F",
    "https://h/peñoles": "https://h/pe%C3%B1oles",
    "https://h/pe%C3%B1oles": "https://h/pe%C3%B1oles",
    "https://h/青禅_ZEN.safetensors": "https://h/%E9%9D%92%E7%A6%85_ZEN.safetensors",
    "https://h/🦜": "https://h/%F0%9F%A6%9C",
    "https://h/my lora (v1.0)[x]!$&'*+,;=:@~|": "https://h/my%20lora%20(v1.0)[x]!$&'*+,;=:@~|",
    'https://h/"<>`{}^': "https://h/%22%3C%3E%60%7B%7D%5E",
    "https://h/a?q=a b&r=ñ'\"<>`{}": "https://h/a?q=a%20b&r=%C3%B1%27%22%3C%3E`{}",
    "https://h/a?b?c#d?e": "https://h/a?b?c",
    "https://h/a?": "https://h/a?",
    "https://h/a;v=1;w/b;x": "https://h/a;v=1;w/b;x",
    "https://h": "https://h/",
    "https://h?q": "https://h/?q",
    "https://h/a/./b/../c": "https://h/a/c",
    "https://h/a/%2e/b/%2E%2e/c": "https://h/a/c",
    "https://h/a/..": "https://h/",
    "https://h/a/.": "https://h/a/",
    "https://h/../../a": "https://h/a",
    "https://h//a//b": "https://h//a//b",
    "https://h/..a/b..": "https://h/..a/b..",
    r"https:\\h\a\b?c\d": r"https://h/a/b?c\d",
    "  https://h/a \n": "https://h/a",
    "\u3000\ufeffhttps://h/a\u200b\u00a0": "https://h/a",
    "HTTPS://H.Example/A": "https://h.example/A",
    "https://h:443/a": "https://h/a",
    "http://h:80/a": "http://h/a",
    "https://h:8443/a": "https://h:8443/a",
    "https://h:/a": "https://h/a",
    "https://@h/a": "https://h/a",
    "https://[2001:DB8::1]:8080/a": "https://[2001:db8::1]:8080/a",
    "https://bücher.example/": "https://xn--bcher-kva.example/",
    "https://BÜCHER.example/": "https://xn--bcher-kva.example/",
    "https://faß.example/": "https://xn--fa-hia.example/",
    "https://例え.テスト/": "https://xn--r8jz45g.xn--zckzah/",
    "https://例え。テスト/": "https://xn--r8jz45g.xn--zckzah/",
    "https://☕.example/": "https://xn--53h.example/",
    "https://%65xample.com/": "https://example.com/",
    "https://b%C3%BCcher.example/": "https://xn--bcher-kva.example/",
    "https://\uff45\uff58\uff41mple.com/": "https://example.com/",
    "https://a_b.example/": "https://a_b.example/",
}


@pytest.mark.parametrize(("text", "expected"), PARSED.items())
def test_a_url_is_read_as_a_browser_reads_it(text: str, expected: str) -> None:
    assert str(parse_url(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "h/a",
        "//h/a",
        "https:",
        "https:h/a",
        "https:/h/a",
        "https://",
        "https:///a",
        "https://?q",
        "https://a b/",
        "https://a%20b/",
        "https://a%00b/",
        "https://a%2fb/",
        "https://a\u2100b/",  # "a/c", which UTS #46 maps it to
        "https://a\uff0fb/",  # a full-width "/"
        "https://a\uff20b/",  # a full-width "@"
        "https://%ff/",
        "https://[::1",
        "https://[::1]x/",
        "https://[fe80::1%eth0]/",
        "https://[1.2.3.4]/",
        "https://h:port/",
        "https://h:70000/",
        "https://h:000080/",
        "https://h:\u0661/",
        "https://h/\nx",
        "https://h/\x00",
        "https://h\r\nX: y/",
        "https://h/\x7f",
        "https://h/\ud800",
        "https://h/" + "x" * 20_000,
    ],
)
def test_no_url_is_no_url(text: str) -> None:
    with pytest.raises(UrlError, match="not a valid URL"):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((f"{scheme}://h/a", "only https") for scheme in ("ftp", "file", "ws", "gopher", "javascript")),
        ("data:,x", "only https"),
        *((f"https://{who}@h/", "user name or password") for who in ("u", "u:p", ":p", "u@v", "u%40", "ü")),
        (r"https://u\@h/", "not a valid URL"),  # the host is "u"; browsers read "\" as "/"
    ],
)
def test_other_urls_are_refused(text: str, reason: str) -> None:
    if reason == "not a valid URL":
        assert parse_url(text).host == "u"
        return
    with pytest.raises(RefusedUrlError, match=reason):
        parse_url(text)


REDIRECTS = {
    b"b": "https://h:1/a/b",
    b"my picture.png": "https://h:1/a/my%20picture.png",
    b"/my picture.png": "https://h:1/my%20picture.png",
    "/картинка.png".encode(): "https://h:1/%D0%BA%D0%B0%D1%80%D1%82%D0%B8%D0%BD%D0%BA%D0%B0.png",
    "/ñ".encode("latin-1"): "https://h:1/%F1",
    b"/%C3%B1%20x": "https://h:1/%C3%B1%20x",
    b"?r=a b": "https://h:1/a/x?r=a%20b",
    b"?": "https://h:1/a/x?",
    b"../b/./c": "https://h:1/b/c",
    b"..": "https://h:1/",
    b"b//c;d": "https://h:1/a/b//c;d",
    b"": "https://h:1/a/x?q",
    b"#top": "https://h:1/a/x?q",
    b"//other/b": "https://other/b",
    rb"\\other\b": "https://other/b",
    rb"\b": "https://h:1/b",
    b"http://other:80/b c": "http://other/b%20c",
    "https://bücher.example/ü".encode(): "https://xn--bcher-kva.example/%C3%BC",
    b" /b\t": "https://h:1/b",
}


@pytest.mark.parametrize(("location", "expected"), REDIRECTS.items())
def test_a_redirect_leads_where_a_browser_goes(location: bytes, expected: str) -> None:
    assert str(redirect_target(parse_url("https://h:1/a/x?q"), location)) == expected


@pytest.mark.parametrize("location", [b"https://[/", b"https://", b"//", b"/a\nb", b"/a\0", b"https://h:x/"])
def test_a_redirect_to_no_url_is_an_error(location: bytes) -> None:
    with pytest.raises(UrlError):
        redirect_target(parse_url("https://h/a"), location)


@pytest.mark.parametrize("location", [b"file:///etc/passwd", b"ftp://h/", b"https://u:p@h/", b"//u@h/", b"a:b"])
def test_a_redirect_is_refused_as_a_url_is(location: bytes) -> None:
    with pytest.raises(RefusedUrlError):
        redirect_target(parse_url("https://h/a"), location)


@given(st.text(max_size=60))
def test_any_text_is_a_url_of_ascii_or_an_error(rest: str) -> None:
    try:
        url = parse_url(f"https://{rest}")
    except (UrlError, RefusedUrlError):
        return
    text = str(url)
    assert text.isascii() and text.isprintable() and " " not in text
    assert parse_url(text) == url


@given(st.binary(max_size=60))
def test_any_location_is_a_url_of_ascii_or_an_error(location: bytes) -> None:
    try:
        url = redirect_target(parse_url("https://h/a/b?q"), location)
    except (UrlError, RefusedUrlError):
        return
    assert parse_url(str(url)) == url


_WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="%?#/\\"), min_size=1, max_size=20)


@given(st.lists(_WORDS.filter(lambda word: word not in (".", "..")), min_size=1, max_size=4), _WORDS)
def test_the_server_receives_what_was_written(segments: list[str], query: str) -> None:
    path = "/".join(segments)
    url = parse_url(f"https://h/x{path}x?q={query}x")
    assert unquote(url.path, errors="strict") == f"/x{path}x"
    assert unquote(url.query or "", errors="strict") == f"q={query}x"


_LABELS = ["bücher", "пример", "例え", "παράδειγμα", "ünïcode", "xn--bcher-kva", "plain", "مثال"]


@given(st.lists(st.sampled_from(_LABELS), min_size=1, max_size=4), st.text("abc/é ", max_size=10))
def test_another_library_reads_the_same_host_and_path(labels: list[str], path: str) -> None:
    text = f"https://{'.'.join(labels)}/{path.strip()}"
    ours, theirs = URL(str(parse_url(text)), encoded=True), URL(text)
    assert (ours.raw_host, ours.raw_path) == (theirs.raw_host, theirs.raw_path)
