"""The message in a server's answer: a page's title, an error of a JSON API or of an object store, a line of text."""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Iterable

from lorikeet.protocol.shorten import shorten

HEAD_BYTES = 4096  # the beginning of an answer, which is enough to name it
_LONGEST = 160  # characters
_TITLE = re.compile(r"<title[^>]*>([^<]{1,1000})", re.IGNORECASE)
_JSON_MESSAGE = re.compile(r'"(?:error|message|detail|msg|reason|error_description)"\s*:\s*"((?:[^"\\]|\\.){1,2000})')
_XML_MESSAGE = re.compile(r"<(?:Code|Message)>([^<]{1,1000})")  # Amazon S3 and other object stores


def answer_text(head: bytes) -> str | None:
    """The message of a page, a JSON document or an XML document, from the beginning of it; None when there is none.

    It has at most 160 characters, in one line.
    """
    text = decoded_text(head) or ""
    if text.startswith(("{", "[")):
        return _one_line(map(_unescaped, _JSON_MESSAGE.findall(text)[:2]))
    if text.startswith("<"):
        return _one_line(map(html.unescape, _TITLE.findall(text)[:1] or _XML_MESSAGE.findall(text)[:2]))
    return None


def error_text(head: bytes) -> str | None:
    """As `answer_text`, and the first line of any other text, from an answer whose status is an error."""
    text = decoded_text(head) or ""
    return _one_line(text.splitlines()[:1]) if text[:1] not in ("{", "[", "<") else answer_text(head)


def decoded_text(head: bytes) -> str | None:
    """The bytes as text without the white space around it; None when they are not text in UTF-8.

    The last character may be incomplete.
    """
    head = head.removeprefix(codecs.BOM_UTF8)
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode()
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text.strip()


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:  # cut in an escape sequence
        return text


def _one_line(messages: Iterable[str]) -> str | None:
    lines = [" ".join("".join(char if char.isprintable() else " " for char in message).split()) for message in messages]
    return shorten(": ".join(filter(None, lines)), _LONGEST) or None
