"""Data URIs (RFC 2397) as browsers read them, and as other programs damage them.

Base64 may contain white space anywhere, and may lack its padding (WHATWG's forgiving-base64). It may use "-" and "_"
(base64url), or have spaces where "+" was: a form decodes a "+" to a space.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runtime.files.percent_encoding import percent_decoded

_BLOCK = 1 << 18  # characters; larger ones leave the processor's cache
_LONGEST_HEAD = 4096  # characters before the comma
_WHITE = b" \t\n\r\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_URL_SAFE_AND_SPACE = bytes.maketrans(b"-_ ", b"+/+")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_EXAMPLE = "data:image/png;base64,iVBORw0…"


class DataUriError(ValueError):
    """The text is not a data URI, or its base64 is invalid; the message is fit for the client."""


def is_data_uri(value: str) -> bool:
    return value[:5].lower() == "data:"


@dataclass(frozen=True)
class DataUri:
    """The data is in `text` from `begin` to `end`."""

    text: str
    begin: int
    end: int
    is_base64: bool

    @property
    def size(self) -> int:
        """Characters of the data as it is written, an upper bound of its bytes."""
        return self.end - self.begin

    def readings(self) -> tuple[bool, ...]:
        """The values of `spaces_are_plus` that are possible, the more likely one first.

        A form that turned each "+" into a space left no "+" and no "%", and base64url has no "+" to begin with. So only
        a text without these leaves a choice, and only if both readings have a valid length.
        """
        if not self.is_base64 or not self._has(" ") or any(map(self._has, "+-_%")):
            return (False,)
        spaces, padding = self._count(" "), self._count("=")
        letters = self.size - padding - sum(map(self._count, " \t\n\r\f"))
        likely = (False, True) if self._is_indented() or self._is_regular(spaces) else (True, False)
        valid = tuple(plus for plus in likely if _is_length(letters + spaces * plus, padding))
        return valid or (False,)

    def chunks(self, spaces_are_plus: bool = False) -> Iterator[bytes]:
        """The data in chunks. Raises DataUriError."""
        is_encoded = self._has("%")
        blocks = percent_decoded(self._blocks()) if is_encoded else self._blocks()
        if not self.is_base64:
            return blocks
        if is_encoded or any(map(self._has, " \t\n\r\f-_")):  # the search is faster than the translation
            blocks = _standard_base64(blocks, spaces_are_plus)
        return _base64_decoded(blocks)

    def _blocks(self) -> Iterator[bytes]:
        for begin in range(self.begin, self.end, _BLOCK):
            block = self.text[begin : min(begin + _BLOCK, self.end)]
            try:
                yield block.encode()
            except UnicodeEncodeError as error:
                raise DataUriError("the data URI contains a character that is not valid Unicode") from error

    def _is_indented(self) -> bool:
        """Whether every line begins or ends with a space."""
        lines = self._count("\n")
        return lines > 0 and lines in (self._count("\n "), self._count(" \n") + self._count(" \r\n"))

    def _is_regular(self, spaces: int) -> bool:
        """Whether two or more spaces separate groups of equal length, as where each line break became a space."""
        period = self.text.find(" ", self.begin, self.end) + 1 - self.begin
        places = self.text[self.begin + period - 1 : self.end : period]
        return spaces > 1 and period % 4 == 1 and len(places) == spaces and not places.strip(" ")

    def _has(self, part: str) -> bool:
        return self.text.find(part, self.begin, self.end) >= 0

    def _count(self, part: str) -> int:
        # The search for an absent part is much faster than the count.
        return self.text.count(part, self.begin, self.end) if self._has(part) else 0


def parse_data_uri(value: str) -> DataUri:
    """Raises DataUriError."""
    comma = value.find(",", 0, _LONGEST_HEAD)
    if comma < 0:
        raise DataUriError(f"a data URI must have a comma before its data: write it as {_EXAMPLE}")
    parameters = value[5:comma].split(";")[1:]
    fragment = value.find("#", comma)
    end = len(value) if fragment < 0 else fragment
    begin = comma + 1
    is_base64 = any(parameter.strip().lower() == "base64" for parameter in parameters)
    if is_base64:
        while begin < end and value[begin].isspace():
            begin += 1
        while begin < end and value[end - 1].isspace():
            end -= 1
    return DataUri(value, begin, end, is_base64)


def bare_base64_hint(value: str) -> str | None:
    """How to write a value that looks like base64 without the head of a data URI; None: it does not look like it."""
    start = value[:_LONGEST_HEAD]
    if re.match(r"([\w.+-]+/[\w.+-]+)?(;[\w-]+=[\w.-]+)*;?base64,", start, re.IGNORECASE):
        return f"it lacks the beginning of a data URI: write it as {_EXAMPLE}"
    letters = re.sub(r"\s", "", start).replace("-", "+").replace("_", "/")
    if len(letters) < 64 or not re.fullmatch(r"[A-Za-z0-9+/%]+=*", letters):
        return None
    media_type = next((name for letter, name in _BEGINNINGS.items() if letters.startswith(letter)), None)
    if media_type is None and len(value) < 256:  # it may be a path
        return None
    kind = media_type or "application/octet-stream"
    return f"it looks like base64, which must be a data URI: write it as data:{kind};base64,{letters[:8]}…"


# The beginnings of pictures in base64
_BEGINNINGS = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "Qk": "image/bmp",
    "SUkqA": "image/tiff",
    "TU0AK": "image/tiff",
}


def _is_length(letters: int, padding: int) -> bool:
    """Whether base64 of that many letters and "=" is complete. Either all padding is there, or none."""
    return letters % 4 != 1 and (not padding or (letters + padding) % 4 == 0)


def _standard_base64(blocks: Iterable[bytes], spaces_are_plus: bool) -> Iterator[bytes]:
    """The blocks with "+" and "/", and without white space."""
    table, removed = (_URL_SAFE_AND_SPACE, _WHITE[1:]) if spaces_are_plus else (_URL_SAFE, _WHITE)
    return (block.translate(table, removed) for block in blocks)


def _base64_decoded(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest, is_padded = b"", False
    for block in blocks:
        letters = block.rstrip(b"=")
        if b"=" in letters or (is_padded and letters):
            raise DataUriError("the data URI is not valid base64: it continues after its padding")
        is_padded = is_padded or len(letters) < len(block)
        data = rest + letters
        whole = len(data) // 4 * 4
        yield _decoded(data[:whole])
        rest = data[whole:]
    if len(rest) == 1:
        raise DataUriError("the data URI is not valid base64: its length shows that a part of it is missing")
    yield _decoded(rest + b"=" * (-len(rest) % 4))


def _decoded(data: bytes) -> bytes:
    """The bytes of complete groups of four letters."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        found = _NOT_BASE64.search(data.rstrip(b"="))
        letter = found[0].decode("ascii", "replace") if found else ""
        reason = f"it contains {letter!r}" if letter else str(error)
        raise DataUriError(f"the data URI is not valid base64: {reason}") from error
