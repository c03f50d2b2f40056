"""Resolves file fields: `tensor:<i>` (a file of the request), a data URI, an https URL, a local path or a Hub id."""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from lorikeet.net.fetch import Fetcher, FetchError, Limits, UnreachableError
from lorikeet.net.host_credentials import read_host_credentials
from lorikeet.protocol.shorten import shorten
from runtime.files.hub import Hub, HubError, hub_cache
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import Pins, Store, StoredFile, check_unchanged
from runtime.files.torch_pickle import is_pickled, to_safetensors
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVALIDATE_SECONDS = 300
_WAIT_SECONDS = 0.5  # between two calls of check_cancelled while another thread downloads the file


@dataclass(frozen=True)
class ResolveContext:
    """What the resolver needs of a request.

    `files` are those of the tensor FILES. `pins` protect stored files from eviction. `check_cancelled` raises when the
    job is cancelled.
    """

    files: Sequence[bytes]
    pins: Pins
    check_cancelled: Callable[[], None]


class FileResolver:
    """Resolves the values of file fields. Methods raise InvalidArgument naming the field, and FileChangedError for
    a file that another program writes at that time."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._tokens = read_host_credentials(settings.tokens) if settings.tokens else {}
        self._fetcher = Fetcher(settings.fetch_allow, self._tokens)
        # Tokens are not sent for pictures: a client would get private pictures back in its response.
        self._open_fetcher = Fetcher(settings.fetch_allow)
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    def image(self, field: str, value: str, context: ResolveContext) -> bytes:
        """The encoded bytes of a picture. Pictures are not stored, because most of them are used once."""
        limit = int(self._settings.max_image_bytes)
        if (sent := _sent(field, value, context)) is not None:
            data = sent
        elif value.startswith("data:"):
            data = _data_uri(field, value)
        elif "://" in value:
            with _naming(field, value):
                response = self._open_fetcher.fetch(value, self._limits(limit, context))
                data = b"".join(response.chunks) if response else b""
        else:
            path = self._local(field, value)
            if path is None or not path.is_file():
                raise InvalidArgument(field, _no_source(value))
            if path.stat().st_size > limit:
                raise InvalidArgument(field, _too_large(limit))
            data = path.read_bytes()
        if len(data) > limit:
            raise InvalidArgument(field, _too_large(limit))
        return data

    def weights(self, field: str, value: str, context: ResolveContext) -> StoredFile:
        """A weight file on disk, and its digest."""
        limit = int(self._settings.max_file_bytes)
        sent = _data_uri(field, value) if value.startswith("data:") else _sent(field, value, context)
        if sent is not None:
            if len(sent) > limit:
                raise InvalidArgument(field, _too_large(limit))
            return self._store.put([sent], context.pins, ".safetensors")
        if "://" in value:
            with self._alone(value, context), _naming(field, value):
                return self._downloaded(value, self._limits(limit, context), context.pins)
        path = self._local(field, value)
        if path is not None:
            if not path.is_file():
                raise InvalidArgument(field, f"{shorten(value)} is a folder; expected a file")
            return self._store.digest_local(path, context.check_cancelled)
        if _HUB_ID.fullmatch(value):
            with self._alone(value, context), _naming(field, value):
                return self._store.digest_local(self._hub(context).lora(value), context.check_cancelled)
        raise InvalidArgument(field, _no_source(value))

    def lora(self, field: str, value: str, context: ResolveContext) -> StoredFile:
        """A LoRA as a .safetensors file on disk. The digest is that of the original file, which torch.save may have
        written."""
        found = self.weights(field, value, context)
        if not is_pickled(found.path):
            return found
        key = f"safetensors of {found.digest}"
        with self._alone(key, context):
            note = self._store.recall(key)
            kept = self._store.blob(note["digest"], context.pins, ".safetensors") if note else None
            if kept is None:
                try:
                    kept = self._store.put(to_safetensors(found.path), context.pins, ".safetensors")
                except WeightFileError as error:
                    raise InvalidArgument(field, f"{shorten(value)}: {error}") from error
                check_unchanged(found.path, found.fingerprint)
                self._store.remember(key, {"digest": kept.digest})
        return StoredFile(kept.path, found.digest)

    def checkpoint(
        self, field: str, value: str, context: ResolveContext, variant: str | None = None
    ) -> Folder | SingleFile:
        """A checkpoint: a single file from any source, or a diffusers-format folder, local or on the Hub."""
        return self._model(field, value, context, lambda: self._hub(context).checkpoint(value, variant))

    def unet(self, field: str, value: str, context: ResolveContext, variant: str | None = None) -> Folder | SingleFile:
        """A UNet: a single file, or the folder of a UNet or of a checkpoint."""
        return self._model(field, value, context, lambda: self._hub(context).unet(value, variant))

    def _model(
        self, field: str, value: str, context: ResolveContext, download: Callable[[], Path]
    ) -> Folder | SingleFile:
        context.check_cancelled()
        if "://" in value or value.startswith(("tensor:", "data:")):
            return SingleFile(_no_pickle(field, value, self.weights(field, value, context)))
        path = self._local(field, value)
        if path is not None:
            inside = next(root for root in self._settings.local_paths if path.is_relative_to(root))
            if path.is_dir():
                return Folder(path, inside)
            if not path.is_file():
                raise InvalidArgument(field, f"{shorten(value)} is a special file; expected a file or a folder")
            with self._alone(f"file:{path}", context):
                stored = self._store.digest_local(path, context.check_cancelled)
            return SingleFile(_no_pickle(field, value, stored), inside)
        if _HUB_ID.fullmatch(value):
            with self._alone(value, context), _naming(field, value):
                return Folder(download(), hub_cache())
        raise InvalidArgument(field, _no_source(value))

    def _hub(self, context: ResolveContext) -> Hub:
        return Hub(int(self._settings.max_file_bytes), self._tokens, context.check_cancelled)

    def _local(self, field: str, value: str) -> Path | None:
        """The path inside an allowed folder that the value names; None when it names no local path.

        A path outside these folders (`..`, a symbolic link) gives the same answer as a missing one: the answer must not
        say which files exist.
        """
        if "\0" in value or len(value) > 4096:
            raise InvalidArgument(field, "expected a path, URL or Hub id of at most 4096 characters without NUL")
        for root in self._settings.local_paths:
            try:
                path = (root / value).resolve()
                if path.is_relative_to(root) and path.exists():
                    return path
            except UnicodeError as error:  # the locale of Triton's stubs is ASCII
                raise InvalidArgument(
                    field, f"{shorten(value)}: a local path may contain only ASCII characters"
                ) from error
            except (OSError, RuntimeError):  # a name too long, a loop of links, no permission
                continue
        if value.startswith(("/", ".", "~")) or value.count("/") > 1:
            raise InvalidArgument(field, f"{shorten(value)} does not exist in a folder of LORIKEET_LOCAL_PATHS")
        return None

    def _downloaded(self, url: str, limits: Limits, pins: Pins) -> StoredFile:
        """The file of a URL; the stored one when the server answers 304 or cannot be reached."""
        note = self._store.recall(f"url:{url}")
        kept = self._store.blob(note["digest"], pins, ".safetensors") if note else None
        if note and kept and time.time() - float(note["checked"]) < _REVALIDATE_SECONDS:
            return kept
        etag = note["etag"] if note and kept else ""
        try:
            response = self._fetcher.fetch(url, limits, etag)
        except UnreachableError:
            if kept is None:
                raise
            return kept
        if response is not None:
            kept = self._store.put(response.chunks, pins, ".safetensors")
            etag = response.etag or ""
        if kept is None:
            raise FetchError("the server answered 304 (not modified) to a request without an ETag")
        self._store.remember(f"url:{url}", {"digest": kept.digest, "etag": etag, "checked": str(time.time())})
        return kept

    def _limits(self, max_bytes: int, context: ResolveContext) -> Limits:
        return Limits(max_bytes, self._settings.fetch_seconds, context.check_cancelled)

    @contextmanager
    def _alone(self, name: str, context: ResolveContext) -> Iterator[None]:
        """Admit one thread at a time for each name: the next one finds the file in the store.

        Raises what `check_cancelled` raises.
        """
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=_WAIT_SECONDS):
                context.check_cancelled()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks.pop(name)
                if users > 1:
                    self._locks[name] = (lock, users - 1)


def _no_pickle(field: str, value: str, stored: StoredFile) -> StoredFile:
    if is_pickled(stored.path):
        raise InvalidArgument(field, f"{shorten(value)} is a pickle (.ckpt, .pt, .bin): expected a .safetensors file")
    return stored


def _sent(field: str, value: str, context: ResolveContext) -> bytes | None:
    """The file that `tensor:<i>` refers to; None for any other value."""
    if not value.startswith("tensor:"):
        return None
    index = value.removeprefix("tensor:")
    if not (index.isascii() and index.isdigit() and len(index) < 6 and int(index) < len(context.files)):
        raise InvalidArgument(
            field, f"{shorten(value)}: expected an index from 0; FILES has {len(context.files)} files"
        )
    return context.files[int(index)]


def _data_uri(field: str, value: str) -> bytes:
    head, comma, body = value.partition(",")
    if not comma:
        raise InvalidArgument(field, "a data URI must have a comma before its data")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote_to_bytes(body) if "%" in body else body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(field, f"the data URI is not valid base64 ({shorten(str(error))})") from error


@contextmanager
def _naming(field: str, value: str) -> Iterator[None]:
    """Turn download errors into an InvalidArgument with the field and the URL."""
    try:
        yield
    except (FetchError, HubError) as error:
        raise InvalidArgument(field, f"{shorten(value)}: {error}") from error


def _no_source(value: str) -> str:
    known = "an https URL, tensor:<i>, a Hub id (owner/name) or a file in a folder of LORIKEET_LOCAL_PATHS"
    return f"{shorten(value)} was not found: expected {known}"


def _too_large(limit: int) -> str:
    return f"the file is too large: expected at most {limit} bytes"
