"""Guarded download: https to public addresses, checked at every connection and redirect, bounded in size and time.

A request names the URL, so the URL may be hostile. `guarded_backend` checks the address of each connection.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpcore

from lorikeet.net.answer_text import HEAD_BYTES, error_text
from lorikeet.net.guarded_backend import READ_SECONDS, GuardedBackend, is_allowed
from lorikeet.net.transfer import FetchError, Limits, Transfer, UnreachableError
from lorikeet.net.url import RefusedUrlError, Url, UrlError, parse_url, redirect_target
from lorikeet.protocol.shorten import shorten

_MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_USER_AGENT = b"lorikeet/0.1"
SEE_TOKENS = "the host wants a token, see LORIKEET_TOKENS"
REFUSED_TOKEN = "it refuses the token of LORIKEET_TOKENS"


@dataclass(frozen=True)
class Response:
    """The server's answer: its ETag, if any, and the body in chunks. `url` is where redirects led, None without them.

    `close` ends the connection; it is needed after an incomplete read.
    """

    etag: str | None
    chunks: Iterator[bytes]
    close: Callable[[], None]
    url: Url | None = None

    @property
    def origin(self) -> str:
        """For messages: " after a redirect to https://host/path", or ""."""
        return "" if self.url is None else after_redirect(self.url)


class Fetcher:
    """Downloads over https. `allow`: hosts (`name` or `name:port`) that may have private addresses or use http.
    `host_tokens`: origin (see `origin`) -> bearer token; a token is sent only to its origin. `denied`, `refused`: what
    the message says when a host answers 401 or 403 to a request without and with a token."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        host_tokens: Mapping[str, str] | None = None,
        denied: str = SEE_TOKENS,
        refused: str = REFUSED_TOKEN,
    ) -> None:
        self._allow, self._host_tokens = frozenset(allow), dict(host_tokens or {})
        self._denied, self._refused = denied, refused
        self._ssl = ssl.create_default_context()

    def fetch(self, url: str, limits: Limits, etag: str | None = None) -> Response | None:
        """Open the URL and follow its redirects. None when the server answers that `etag` is still current.

        Raises FetchError when the URL is refused. Errors while the body is read are raised by the chunks' iterator.
        """
        transfer = Transfer(limits, time.monotonic())
        pool = httpcore.ConnectionPool(
            ssl_context=self._ssl, network_backend=GuardedBackend(self._allow, transfer), max_keepalive_connections=0
        )
        asked = place = _parsed(url)
        for _ in range(_MAX_REDIRECTS + 1):
            if place.scheme != "https" and not is_allowed(place.bare_host, place.effective_port, self._allow):
                raise FetchError("only https URLs are fetched")
            token = self._token(asked, place)
            response = _open(pool, place, _headers(place, etag, token))
            names = {name.lower(): value for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in names:
                response.close()
                place = _redirected(place, names[b"location"])
                continue
            if response.status == 304:
                response.close()
                return None
            redirected = None if place == asked else place
            if response.status != 200:
                raise self._refusal(response, bool(token), redirected)
            chunks = _chunks(response, names.get(b"content-length"), transfer)
            found = names.get(b"etag")
            return Response(found.decode("latin-1") if found else None, chunks, response.close, redirected)
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    def _token(self, asked: Url, url: Url) -> str | None:
        """The token of the requested URL's origin. None after a redirect to another one."""
        return self._host_tokens.get(origin(url)) if origin(url) == origin(asked) else None

    def _refusal(self, response: httpcore.Response, with_token: bool, redirected: Url | None) -> FetchError:
        """The error for a status that is not success. It ends with the beginning of the server's own message."""
        status = response.status
        message = f"the server answered {status}" + ("" if redirected is None else after_redirect(redirected))
        if status in (401, 403):
            message += f": {self._refused if with_token else self._denied}"
        try:
            said = error_text(next(response.iter_stream(), b"")[:HEAD_BYTES]) if 400 <= status < 500 else None
        except (*_CONNECTION_ERRORS, FetchError):
            said = None
        finally:
            response.close()
        return (UnreachableError if status >= 500 else FetchError)(message + (f" ({said})" if said else ""))


def origin(url: Url) -> str:
    """Where a token may be sent: `host` for https on port 443, `host:port`, or `http://host` for plain http.

    LORIKEET_TOKENS has no name of the last form: its tokens are sent over https only.
    """
    return url.netloc if url.scheme == "https" else f"{url.scheme}://{url.netloc}"


def after_redirect(url: Url) -> str:
    """For messages: where a redirect led, without the query."""
    return f" after a redirect to {shorten(url.without_query)}"


def _parsed(url: str) -> Url:
    try:
        return parse_url(url)
    except (UrlError, RefusedUrlError) as error:
        raise FetchError(str(error)) from error


def _redirected(url: Url, location: bytes) -> Url:
    try:
        return redirect_target(url, location)
    except UrlError as error:
        raise FetchError("the redirect leads to an invalid URL") from error
    except RefusedUrlError as error:
        raise FetchError(str(error)) from error


def _headers(url: Url, etag: str | None, token: str | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"Host", url.netloc.encode("ascii")), (b"User-Agent", _USER_AGENT)]
    headers += [(b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
    if etag:
        headers.append((b"If-None-Match", etag.encode("latin-1")))
    if token:
        headers.append((b"Authorization", f"Bearer {token}".encode("ascii")))
    return headers


def _open(pool: httpcore.ConnectionPool, url: Url, headers: list[tuple[bytes, bytes]]) -> httpcore.Response:
    seconds = {"connect": _CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS}
    # httpcore would cut a URL given as text at ";" and remove an empty query.
    place = httpcore.URL(scheme=url.scheme, host=url.bare_host, port=url.port, target=url.target)
    try:
        return pool.handle_request(httpcore.Request("GET", place, headers=headers, extensions={"timeout": seconds}))
    except _CONNECTION_ERRORS as error:
        raise UnreachableError(_message(error)) from error


def _chunks(response: httpcore.Response, length: bytes | None, transfer: Transfer) -> Iterator[bytes]:
    """The body in chunks. Raises FetchError when it exceeds its limits or the connection fails."""
    limits = transfer.limits
    try:
        if length is not None and length.isdigit() and int(length) > limits.bytes:
            raise FetchError(f"larger than {limits.bytes} bytes")
        got = 0
        for chunk in response.iter_stream():
            transfer.left()
            got += len(chunk)
            if got > limits.bytes:
                raise FetchError(f"larger than {limits.bytes} bytes")
            yield chunk
    except _CONNECTION_ERRORS as error:
        raise FetchError(_message(error)) from error
    finally:
        with suppress(*_CONNECTION_ERRORS):
            response.close()


_CONNECTION_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)


def _message(error: BaseException) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "the server did not answer in time"
    return str(error) or "the connection failed"
