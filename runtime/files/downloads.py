"""Weight files by URL: fetched once, checked before the store keeps them, and compared with the server's later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from lorikeet.net.answer_text import HEAD_BYTES, answer_text
from lorikeet.net.fetch import Fetcher, Response
from lorikeet.net.transfer import FetchError, Limits, UnreachableError
from lorikeet.net.url import Url
from runtime.files.blob_locks import Pins
from runtime.files.not_weights import WEB_PAGE, describe_text
from runtime.files.page_hint import page_hint
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import Store
from runtime.files.stored_file import StoredFile
from runtime.files.weight_check import WeightCheck

_REVALIDATE_SECONDS = 300
_SUFFIX = ".safetensors"


def download_weights(
    url: Url, fetcher: Fetcher, store: Store, limits: Limits, pins: Pins, check: WeightCheck
) -> StoredFile:
    """The file of a URL; the stored one when the server answers 304 or cannot be reached.

    A file that fails its check is not kept: the next request asks the server again. Raises FetchError and StoreError.
    """
    key = f"url:{url}"
    note = store.recall(key) or {}
    kept = _kept(note, store, pins, check)
    if kept and 0 <= time.time() - _seconds(note["checked"]) < _REVALIDATE_SECONDS:
        return kept
    etag = note["etag"] if kept else ""
    try:
        response = fetcher.fetch(str(url), limits, etag)
    except UnreachableError:
        if kept is None:
            raise
        return kept
    if response is not None:
        with closing(response):
            kept, etag = _stored(url, response, store, pins, check), response.etag or ""
    if kept is None:
        raise FetchError("the server answered 304 (not modified) to a request without an ETag")
    store.remember(key, {"digest": kept.digest, "etag": etag, "checked": str(time.time())})
    return kept


def explain(problem: str, url: Url, response: Response, head: bytes = b"") -> str:
    """What is wrong with an answer, with its own message, and what to do about it: see `page_hint`."""
    said = answer_text(head)
    hint = page_hint(url) if WEB_PAGE in problem else None
    return problem + (f': "{said}"' if said else "") + (f", {hint}" if hint else "") + response.origin


def _kept(note: dict[str, str], store: Store, pins: Pins, check: WeightCheck) -> StoredFile | None:
    """The stored file of a URL's note. It may be of another kind than this field needs."""
    if not {"digest", "etag", "checked"} <= note.keys():
        return None
    kept = store.blob(note["digest"], pins, _SUFFIX)
    if kept is None:
        return None
    try:
        check(kept.path)
    except WeightFileError:
        return None
    return kept


def _seconds(text: str) -> float:
    """A note's time; 0 for a damaged one."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _stored(url: Url, response: Response, store: Store, pins: Pins, check: WeightCheck) -> StoredFile:
    try:
        return store.put(_without_text(url, response), pins, _SUFFIX, check)
    except WeightFileError as error:
        raise FetchError(explain(str(error), url, response)) from error


def _without_text(url: Url, response: Response) -> Iterator[bytes]:
    """The chunks of a download. Raises FetchError at its beginning when it is a page or another text."""
    head = b""
    for chunk in response.chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    start = head[:HEAD_BYTES]
    if what := describe_text(start):
        raise FetchError(explain(f"not a weight file: it is {what}", url, response, start))
    yield head
    yield from response.chunks
