"""Guarded download: what is asked for, redirects, and what the server's answers mean."""

from __future__ import annotations

import pytest

from lorikeet.net.fetch import Fetcher
from lorikeet.net.transfer import FetchError
from tests.unit.runtime.downloading import LIMITS, break_off, fetch_body
from tests.unit.runtime.web import Web, redirect, reply


def test_the_body_and_its_etag_come(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"content", headers={"ETag": '"1"'})
    response = fetcher.fetch(web.url("/a"), LIMITS)
    assert response is not None
    assert (b"".join(response.chunks), response.etag) == (b"content", '"1"')


def test_nothing_but_the_file_itself_is_asked_for(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"content")
    fetch_body(fetcher, web.url("/a?token=1"))
    (_, headers) = web.seen[0]
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "If-None-Match"} & set(headers)


def test_an_unchanged_file_is_not_sent_again(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(status=304)
    assert fetcher.fetch(web.url("/a"), LIMITS, '"1"') is None
    assert web.seen[0][1]["If-None-Match"] == '"1"'


@pytest.mark.parametrize("status", [204, 206, 401, 404, 500, 302])
def test_any_other_answer_is_an_error(web: Web, fetcher: Fetcher, status: int) -> None:
    web.answers["/a"] = reply(status=status)
    with pytest.raises(FetchError, match=f"the server answered {status}"):
        fetcher.fetch(web.url("/a"), LIMITS)


def test_a_redirect_is_followed(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("b/c"), "/b/c": redirect(web.url("/d")), "/d": reply(b"content")}
    assert fetch_body(fetcher, web.url("/a")) == b"content"


def test_redirects_in_a_circle_end(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetcher.fetch(web.url("/a"), LIMITS)
    assert len(web.seen) == 6


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/my picture.png", "/my%20picture.png"),
        ("/my%20picture.png", "/my%20picture.png"),
        ("/青禅_ZEN.safetensors \n", "/%E9%9D%92%E7%A6%85_ZEN.safetensors"),
        ("/a;b=c.png", "/a;b=c.png"),
        ("/a/../b.png#top", "/b.png"),
    ],
)
def test_a_url_is_asked_for_as_a_browser_asks(web: Web, fetcher: Fetcher, written: str, asked: str) -> None:
    web.answers[asked] = reply(b"content")
    assert fetch_body(fetcher, web.url(written)) == b"content"


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/my picture.png", "/my%20picture.png"),
        ("/картинка.png".encode(), "/%D0%BA%D0%B0%D1%80%D1%82%D0%B8%D0%BD%D0%BA%D0%B0.png"),
        ("/peñ.png".encode("latin-1"), "/pe%F1.png"),
        (b"/pe%C3%B1.png", "/pe%C3%B1.png"),
        (b"b;c//d.png?response-content-disposition=attachment; filename=x y", "/b;c//d.png"),
    ],
)
def test_a_redirect_may_be_written_in_any_alphabet(web: Web, fetcher: Fetcher, location: bytes, asked: str) -> None:
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    web.answers |= {"/a": break_off(answer), asked: reply(b"content")}
    assert fetch_body(fetcher, web.url("/a")) == b"content"


def test_the_answer_names_where_redirects_led(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("/login?secret=1"), "/login": reply(b"content"), "/b": redirect("/none?secret=1")}
    response = fetcher.fetch(web.url("/a"), LIMITS)
    assert response is not None
    assert response.origin == f" after a redirect to {web.url('/login')}"
    response.close()
    with pytest.raises(FetchError, match=f"^the server answered 404 after a redirect to {web.url('/none')}$"):
        fetcher.fetch(web.url("/b"), LIMITS)


@pytest.mark.parametrize("status", [401, 403])
def test_a_host_that_wants_a_token_is_explained(web: Web, fetcher: Fetcher, status: int) -> None:
    body = b'{"error":"Unauthorized","message":"The creator requires you to be logged in"}'
    web.answers["/a"] = reply(body, status)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(web.url("/a"), LIMITS)
    assert str(caught.value) == (
        f"the server answered {status}: the host wants a token, see LORIKEET_TOKENS "
        "(Unauthorized: The creator requires you to be logged in)"
    )
    with pytest.raises(FetchError, match="send the file"):
        Fetcher([web.host], denied="send the file").fetch(web.url("/a"), LIMITS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"Entry not found", "Entry not found"),
        (b"<html><title>Not &amp; found</title>", "Not & found"),
        (b'{"detail": "' + b"x" * 9000, "x" * 157 + "..."),
        (
            b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message>",
            "AccessDenied: Request has expired",
        ),
        (b"two\r\nlines \x1b[31m", "two"),
    ],
)
def test_the_servers_own_message_is_cut(web: Web, fetcher: Fetcher, body: bytes, said: str) -> None:
    web.answers["/a"] = reply(body, 404)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(web.url("/a"), LIMITS)
    assert str(caught.value) == f"the server answered 404 ({said})"
