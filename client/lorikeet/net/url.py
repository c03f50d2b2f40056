"""Reads URLs as a browser does (https://url.spec.whatwg.org), so that a pasted address works as it is.

White space around a URL is removed. Spaces and other alphabets in its path and query are percent-encoded in UTF-8, and
in its host mapped to ASCII (UTS #46). Parts that are percent-encoded already stay as they are.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

import idna

from lorikeet.protocol.encodable import is_encodable

_MAX_CHARACTERS = 16_384
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]*))?")
_NOT_IN_HOSTS = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")
# White space, and the characters without a width that a copied text may begin or end with.
_SURROUNDING = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff\u200b\u200e\u200f\u2060"
_ASCII = bytes(range(0x80))
# The printable ASCII characters that a path and a query contain as they are, "%" among them.
_PATH_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"#<>?^`{}')
_QUERY_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "\"#'<>")


class UrlError(ValueError):
    """The text is not a valid http or https URL; the message is fit for the client."""


class RefusedUrlError(ValueError):
    """The URL has another scheme, or contains credentials; the message is fit for the client."""


@dataclass(frozen=True)
class Url:
    """A URL of ASCII characters, without a fragment. `port` is None for the scheme's own port; `query` may be ""."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None = None

    @property
    def bare_host(self) -> str:
        """The host without the brackets of an IPv6 address."""
        return self.host.strip("[]")

    @property
    def netloc(self) -> str:
        """`host` or `host:port`, as in the header Host."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """The path and the query, as in the first line of a request."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def effective_port(self) -> int:
        return _DEFAULT_PORTS[self.scheme] if self.port is None else self.port

    @property
    def without_query(self) -> str:
        """The URL for messages: a query may contain a signature or a token."""
        return f"{self.scheme}://{self.netloc}{self.path}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


def trim(text: str) -> str:
    """The text without the white space and the invisible characters around it."""
    return text.strip(_SURROUNDING)


def parse_url(text: str) -> Url:
    """Raises UrlError and RefusedUrlError."""
    text = _checked(text)
    if not (found := _SCHEME.match(text)):
        raise UrlError("not a valid URL")
    scheme = found[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise RefusedUrlError("only https URLs are fetched")
    place, query = _split(text[found.end() :])
    if not place.startswith("//"):
        raise UrlError(f"not a valid URL: expected {scheme}://host/path")
    authority, _, path = place[2:].partition("/")
    credentials, _, authority = authority.rpartition("@")
    if credentials.strip(":"):
        raise RefusedUrlError("a URL with a user name or password is not fetched; remove it from the URL")
    host, port = _host_and_port(authority)
    return Url(scheme, host, None if port == _DEFAULT_PORTS[scheme] else port, _encoded_path(path), _encoded(query))


def redirect_target(base: Url, location: bytes) -> Url:
    """The URL that the header Location of a redirect from `base` names. Raises UrlError and RefusedUrlError.

    The header may be relative. Its bytes outside ASCII are percent-encoded one by one: they reach the server unchanged.
    """
    text = _checked(quote(location, safe=_ASCII))
    if _SCHEME.match(text):
        return parse_url(text)
    place, query = _split(text)
    if place.startswith("//"):
        return parse_url(f"{base.scheme}:{text}")
    if not place:
        return base if query is None else replace(base, query=_encoded(query))
    folder = "" if place.startswith("/") else base.path.rpartition("/")[0] + "/"
    return replace(base, path=_encoded_path((folder + place)[1:]), query=_encoded(query))


def _checked(text: str) -> str:
    """The text without white space around it. Raises UrlError for control characters, which no URL contains."""
    text = trim(text)
    if len(text) > _MAX_CHARACTERS:
        raise UrlError(f"not a valid URL: expected at most {_MAX_CHARACTERS} characters")
    if _CONTROL.search(text):
        raise UrlError("not a valid URL: it contains a line break or another control character; remove it")
    if not is_encodable(text):
        raise UrlError("not a valid URL: it contains a character that is not valid Unicode")
    return text


def _split(text: str) -> tuple[str, str | None]:
    """What precedes the query, with "/" for each backslash, and the query; the fragment is left out."""
    place, mark, query = text.partition("#")[0].partition("?")
    return place.replace("\\", "/"), query if mark else None


def _host_and_port(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        found = _BRACKETED.fullmatch(authority)
        try:
            ipaddress.IPv6Address(found[1] if found else "")
        except ValueError as error:
            raise UrlError("not a valid URL: its IPv6 address is invalid") from error
        assert found
        host, port = f"[{found[1].lower()}]", found[2] or ""
    else:
        name, _, port = authority.partition(":")
        host = _ascii_host(name)
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        raise UrlError("not a valid URL: expected a port from 0 to 65535")
    return host, int(port)


def _ascii_host(name: str) -> str:
    try:
        host = unquote(name, errors="strict") if "%" in name else name
        if not host.isascii():
            # Browsers accept more names than idna.encode does, such as those with emoji.
            host = ".".join(map(_ascii_label, idna.uts46_remap(host, std3_rules=False).split(".")))
    except (UnicodeError, idna.IDNAError) as error:
        raise UrlError("not a valid URL: its host name is invalid") from error
    if not host or not host.isascii() or _NOT_IN_HOSTS.search(host):
        raise UrlError("not a valid URL: its host name is missing or invalid")
    return host.lower()


def _ascii_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode()


def _encoded_path(path: str) -> str:
    """The path with a "/" in front. "." and ".." are resolved as a browser does, also where they are encoded."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(quote(segment, safe=_PATH_SAFE))
    if segments[-1].lower().replace("%2e", ".") in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _encoded(query: str | None) -> str | None:
    return None if query is None else quote(query, safe=_QUERY_SAFE)
