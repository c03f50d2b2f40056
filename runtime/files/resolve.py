"""Resolves file fields: `tensor:<i>` (a file of the request), a data URI, an https URL, a local path or a Hub id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from lorikeet.net.answer_text import HEAD_BYTES
from lorikeet.net.fetch import Fetcher, Response
from lorikeet.net.host_credentials import read_host_credentials
from lorikeet.net.transfer import FetchError, Limits
from lorikeet.net.url import RefusedUrlError, Url, UrlError, parse_url, trim
from lorikeet.protocol.shorten import shorten
from runtime.files.blob_locks import Pins
from runtime.files.data_uri import DataUri, DataUriError, bare_base64_hint, is_data_uri, parse_data_uri
from runtime.files.downloads import download_weights, explain
from runtime.files.face_pack import check_archive, entries, pack_names
from runtime.files.hub import Hub, HubError, hub_cache
from runtime.files.image_codec import ImageError, decode_image
from runtime.files.local_files import find_local
from runtime.files.located import Folder, SingleFile
from runtime.files.named_locks import NamedLocks
from runtime.files.not_weights import describe_not_picture
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import Store
from runtime.files.store_error import StoreError
from runtime.files.stored_file import StoredFile, check_unchanged
from runtime.files.torch_pickle import is_pickled, to_safetensors
from runtime.files.weight_check import WeightCheck, check_checkpoint, check_lora
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, Unavailable

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_MAX_NAME = 4096  # characters of a path or a Hub id
MAX_CONFIG_BYTES = 1 << 20  # of a network's config.json; published ones have some kilobytes
_SUFFIX = ".safetensors"
FindOnHub = Callable[[Hub, str], Path | str]  # a repository's name -> its file, or a URL of the file
_NO_TOKEN = "no token of LORIKEET_TOKENS is sent for a picture: send the picture with the request"


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
    """Resolves the values of file fields. Methods raise InvalidArgument naming the field, FileChangedError for a file
    that another program writes at that time, and Unavailable when the store cannot keep a file."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._tokens = read_host_credentials(settings.tokens) if settings.tokens else {}
        self._fetcher = Fetcher(settings.fetch_allow, self._tokens)
        # Tokens are not sent for pictures: a client would get private pictures back in its response.
        self._open_fetcher = Fetcher(settings.fetch_allow, denied=_NO_TOKEN)
        self._locks = NamedLocks()

    def image(self, field: str, value: str, context: ResolveContext) -> bytes:
        """The encoded bytes of a picture. Pictures are not stored, because most of them are used once."""
        limit = int(self._settings.max_image_bytes)
        with _naming(field, value):
            if is_data_uri(trim(value)):
                data = self._image_in_uri(field, trim(value), context)
            elif "://" in value:
                return self._image_at(parse_url(value), self._limits(limit, context))
            else:
                data = self._small_file(field, value, limit, context)
        if len(data) > limit:
            raise InvalidArgument(field, _too_large(limit))
        if what := describe_not_picture(data[:HEAD_BYTES]):
            raise InvalidArgument(field, f"not a picture: it is {what}")
        return data

    def config(self, field: str, value: str, context: ResolveContext) -> bytes:
        """The content of a small JSON file, at most `MAX_CONFIG_BYTES`."""
        with _naming(field, value):
            if is_data_uri(trim(value)):
                chunks = parse_data_uri(trim(value)).chunks()
                return b"".join(_bounded(field, chunks, MAX_CONFIG_BYTES, context))
            if "://" in value:
                limits = self._limits(MAX_CONFIG_BYTES, context)
                with closing(_answered(self._fetcher.fetch(str(parse_url(value)), limits))) as response:
                    return b"".join(response.chunks)
            return self._small_file(field, value, MAX_CONFIG_BYTES, context)

    def _small_file(self, field: str, value: str, limit: int, context: ResolveContext) -> bytes:
        """The content of a file that the request has sent, or of a local one of at most `limit` bytes."""
        if (sent := _sent(field, value, context)) is not None:
            if len(sent) > limit:
                raise InvalidArgument(field, _too_large(limit))
            return sent
        path = self._local(field, value)
        if path is None or not path.is_file():
            raise InvalidArgument(field, _not_found(value))
        if path.stat().st_size > limit:
            raise InvalidArgument(field, _too_large(limit))
        return path.read_bytes()

    def _image_at(self, url: Url, limits: Limits) -> bytes:
        with closing(_answered(self._open_fetcher.fetch(str(url), limits))) as response:
            data = b"".join(response.chunks)
        if what := describe_not_picture(data[:HEAD_BYTES]):
            raise FetchError(explain(f"not a picture: it is {what}", url, response, data[:HEAD_BYTES]))
        return data

    def _image_in_uri(self, field: str, value: str, context: ResolveContext) -> bytes:
        """Of two possible readings, the first one that is a picture."""
        uri, limit = parse_data_uri(value), int(self._settings.max_image_bytes)
        readings = uri.readings()
        for spaces_are_plus in readings:
            data = b"".join(_bounded(field, uri.chunks(spaces_are_plus), limit, context))
            if len(readings) == 1:
                break
            try:
                decode_image(data, int(self._settings.max_pixels))
                break
            except ImageError:
                continue
        return data

    def _weights(
        self, field: str, value: str, context: ResolveContext, check: WeightCheck, find: FindOnHub = Hub.lora
    ) -> StoredFile:
        """A weight file on disk, and its digest. The store keeps a file only after `check` accepted it."""
        limit = int(self._settings.max_file_bytes)
        with _naming(field, value):
            if (sent := _sent(field, value, context)) is not None:
                return self._store.put(_bounded(field, [sent], limit, context), context.pins, _SUFFIX, check)
            if is_data_uri(trim(value)):
                return self._weights_in_uri(field, parse_data_uri(trim(value)), context, check)
            if "://" in value:
                return self._weights_at(parse_url(value), self._fetcher, context, check)
            path = self._local(field, value)
            if path is not None:
                if not path.is_file():
                    raise InvalidArgument(field, f"{_shown(value)} is a folder; expected a file")
                return self._store.digest_local(path, context.check_cancelled)
            if _HUB_ID.fullmatch(name := trim(value)):
                return self._weights_on_hub(name, context, check, find)
        raise InvalidArgument(field, _not_found(value))

    def lora(self, field: str, value: str, context: ResolveContext) -> StoredFile:
        """A LoRA as a .safetensors file on disk. The digest is that of the original file, which torch.save may have
        written."""
        return self._adapter(field, value, context, Hub.lora)

    def embedding(self, field: str, value: str, context: ResolveContext) -> StoredFile:
        """A textual inversion, as `lora`."""
        return self._adapter(field, value, context, Hub.embedding)

    def _adapter(self, field: str, value: str, context: ResolveContext, find: FindOnHub) -> StoredFile:
        found = self._weights(field, value, context, check_lora, find)
        with _naming(field, value):
            return self._as_safetensors(found, context)

    def _as_safetensors(self, found: StoredFile, context: ResolveContext) -> StoredFile:
        """The file itself, or for one of torch.save its tensors as a .safetensors file of the store."""
        if not is_pickled(found.path):
            return found
        key = f"safetensors of {found.digest}"
        with self._locks.alone(key, context.check_cancelled):
            digest = (self._store.recall(key) or {}).get("digest")
            kept = self._store.blob(digest, context.pins, _SUFFIX) if digest else None
            if kept is None:
                kept = self._store.put(to_safetensors(found.path), context.pins, _SUFFIX)
                check_unchanged(found.path, found.fingerprint)
                self._store.remember(key, {"digest": kept.digest})
        return StoredFile(kept.path, found.digest)

    def checkpoint(
        self, field: str, value: str, context: ResolveContext, variant: str | None = None
    ) -> Folder | SingleFile:
        """A checkpoint: a single file from any source, or a diffusers-format folder, local or on the Hub."""
        return self._model(field, value, context, lambda name: self._hub(context).checkpoint(name, variant))

    def unet(self, field: str, value: str, context: ResolveContext, variant: str | None = None) -> Folder | SingleFile:
        """A UNet: a single file, or the folder of a UNet or of a checkpoint."""
        return self._model(field, value, context, lambda name: self._hub(context).unet(name, variant))

    def controlnet(
        self, field: str, value: str, context: ResolveContext, variant: str | None = None
    ) -> Folder | SingleFile:
        """A ControlNet: a single file, which torch.save may have written, or a folder of diffusers."""
        download = partial(Hub.controlnet, self._hub(context), variant=variant)
        return self._model(field, value, context, download, check_lora)

    def network(
        self, field: str, value: str, context: ResolveContext, choose: Callable[[list[str]], list[str]]
    ) -> Folder | SingleFile:
        """A network in a single file, which torch.save may have written, or in a folder. Of a repository on the Hub,
        `choose` takes the files to download by their names; it may raise HubError."""
        return self._model(field, value, context, lambda name: self._hub(context).files(name, choose), check_lora)

    def face_pack(self, field: str, value: str, context: ResolveContext) -> Folder | tuple[StoredFile, ...]:
        """An InsightFace pack: its folder, local or on the Hub, or the ONNX files of a zip archive from another source.

        Nothing is known of the files' content.
        """
        name = trim(value)
        is_sent = "://" in value or name.startswith("tensor:") or is_data_uri(name)
        path = None if is_sent else self._local(field, value)
        if not is_sent and (path is None or not path.is_file()):
            source = self._model(field, value, context, lambda found: self._hub(context).files(found, _pack_on_hub))
            assert isinstance(source, Folder), "neither sent nor a file"
            return source
        archive = self._weights(field, value, context, check_archive)
        with _naming(field, value):
            return self._unpacked(archive, context)

    def _unpacked(self, archive: StoredFile, context: ResolveContext) -> tuple[StoredFile, ...]:
        """The files of an archive, which the store keeps."""
        key = f"face pack of {archive.digest}"
        with self._locks.alone(key, context.check_cancelled):
            digests = (self._store.recall(key) or {}).values()
            found = [self._store.blob(digest, context.pins) for digest in digests]
            kept = [file for file in found if file is not None]
            if not kept or len(kept) < len(found):
                kept = [self._store.put(_checking(chunks, context), context.pins) for chunks in entries(archive.path)]
                check_unchanged(archive.path, archive.fingerprint)
                self._store.remember(key, {str(place): file.digest for place, file in enumerate(kept)})
            return tuple(kept)

    def file_of(self, field: str, path: Path, context: ResolveContext) -> StoredFile:
        """A weight file of a folder, as a .safetensors file."""
        with _naming(field, path.name), self._locks.alone(f"file:{path}", context.check_cancelled):
            check_lora(path)
            return self._as_safetensors(self._store.digest_local(path, context.check_cancelled), context)

    def _model(
        self,
        field: str,
        value: str,
        context: ResolveContext,
        download: Callable[[str], Path],
        check: WeightCheck = check_checkpoint,
    ) -> Folder | SingleFile:
        context.check_cancelled()
        name = trim(value)
        if "://" in value or name.startswith("tensor:") or is_data_uri(name):
            found = self._weights(field, value, context, check)
            with _naming(field, value):
                return SingleFile(self._as_safetensors(found, context), name=_name_in_url(value))
        path = self._local(field, value)
        if path is not None:
            inside = next(root for root in self._settings.local_paths if path.is_relative_to(root))
            if path.is_dir():
                return Folder(path, inside)
            if not path.is_file():
                raise InvalidArgument(field, f"{_shown(value)} is a special file; expected a file or a folder")
            with _naming(field, value), self._locks.alone(f"file:{path}", context.check_cancelled):
                stored = self._store.digest_local(path, context.check_cancelled)
                if is_pickled(path):
                    check(path)
                readable = self._as_safetensors(stored, context)
            return SingleFile(readable, inside if readable is stored else None, Path(name).name)
        if _HUB_ID.fullmatch(name):
            with _naming(field, value), self._locks.alone(name, context.check_cancelled):
                return Folder(download(name), hub_cache())
        raise InvalidArgument(field, _not_found(value))

    def _weights_at(self, url: Url, fetcher: Fetcher, context: ResolveContext, check: WeightCheck) -> StoredFile:
        limits = self._limits(int(self._settings.max_file_bytes), context)
        with self._locks.alone(str(url), context.check_cancelled):
            return download_weights(url, fetcher, self._store, limits, context.pins, check)

    def _weights_in_uri(self, field: str, uri: DataUri, context: ResolveContext, check: WeightCheck) -> StoredFile:
        """Of two possible readings, the first one that is a weight file."""
        limit, readings = int(self._settings.max_file_bytes), uri.readings()
        for spaces_are_plus in readings[:-1]:
            chunks = _bounded(field, uri.chunks(spaces_are_plus), limit, context)
            with suppress(WeightFileError):
                return self._store.put(chunks, context.pins, _SUFFIX, check)
        chunks = _bounded(field, uri.chunks(readings[-1]), limit, context)
        return self._store.put(chunks, context.pins, _SUFFIX, check)

    def _weights_on_hub(self, name: str, context: ResolveContext, check: WeightCheck, find: FindOnHub) -> StoredFile:
        hub = self._hub(context)
        with self._locks.alone(name, context.check_cancelled):
            found = find(hub, name)
            if isinstance(found, Path):
                return self._store.digest_local(found, context.check_cancelled)
        return self._weights_at(parse_url(found), hub.fetcher(self._settings.fetch_allow), context, check)

    def _hub(self, context: ResolveContext) -> Hub:
        return Hub(int(self._settings.max_file_bytes), self._tokens, context.check_cancelled)

    def _local(self, field: str, value: str) -> Path | None:
        """The path inside an allowed folder that the value names; None when it names no local path."""
        if "\0" in value or len(value) > _MAX_NAME:
            expected = f"expected a path, URL or Hub id of at most {_MAX_NAME} characters without NUL"
            raise InvalidArgument(field, bare_base64_hint(value) or expected)
        found = find_local(self._settings.local_paths, value)
        name = trim(value)
        if found is None and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
            missing = f"{_shown(value)} does not exist in a folder of LORIKEET_LOCAL_PATHS"
            raise InvalidArgument(field, bare_base64_hint(value) or missing)
        return found

    def _limits(self, max_bytes: int, context: ResolveContext) -> Limits:
        return Limits(max_bytes, self._settings.fetch_seconds, context.check_cancelled)


def _pack_on_hub(names: list[str]) -> list[str]:
    try:
        return pack_names(names)
    except WeightFileError as error:
        raise HubError(str(error)) from error


def _checking(chunks: Iterator[bytes], context: ResolveContext) -> Iterator[bytes]:
    """The chunks. Raises what `check_cancelled` raises."""
    for chunk in chunks:
        context.check_cancelled()
        yield chunk


def _sent(field: str, value: str, context: ResolveContext) -> bytes | None:
    """The file that `tensor:<i>` refers to; None for any other value."""
    name = trim(value)
    if not name.startswith("tensor:"):
        return None
    index = name.removeprefix("tensor:")
    if not (index.isascii() and index.isdigit() and len(index) < 6 and int(index) < len(context.files)):
        raise InvalidArgument(field, f"{_shown(name)}: expected an index from 0; FILES has {len(context.files)} files")
    return context.files[int(index)]


def _name_in_url(value: str) -> str:
    """The last part of a URL's path; "" for every other value."""
    if "://" not in value or is_data_uri(trim(value)):
        return ""
    return unquote(parse_url(value).path).rpartition("/")[2]


def _answered(response: Response | None) -> Response:
    if response is None:
        raise FetchError("the server answered 304 (not modified) to a request without an ETag")
    return response


def _bounded(field: str, chunks: Iterable[bytes], limit: int, context: ResolveContext) -> Iterator[bytes]:
    """The chunks of a file of at most `limit` bytes. Raises what `check_cancelled` raises."""
    size = 0
    for chunk in chunks:
        context.check_cancelled()
        size += len(chunk)
        if size > limit:
            raise InvalidArgument(field, _too_large(limit))
        yield chunk


@contextmanager
def _naming(field: str, value: str) -> Iterator[None]:
    """Turn the errors of sources into StageErrors that name the field and the value."""
    try:
        yield
    except DataUriError as error:
        raise InvalidArgument(field, str(error)) from error
    except (FetchError, HubError, UrlError, RefusedUrlError, WeightFileError) as error:
        raise InvalidArgument(field, f"{_shown(value)}: {error}") from error
    except StoreError as error:
        raise Unavailable(f"{field}: {error}") from error
    except OSError as error:  # a local file that may not be read
        raise InvalidArgument(field, f"{_shown(value)} cannot be read ({error.strerror})") from error


def _shown(value: str) -> str:
    """A value for messages: in one line, and cut."""
    text = trim(value)
    if is_data_uri(text):
        return "the data URI"
    return shorten(text)


def _not_found(value: str) -> str:
    known = "an https URL, tensor:<i>, a Hub id (owner/name) or a file in a folder of LORIKEET_LOCAL_PATHS"
    return bare_base64_hint(value) or f"{_shown(value)} was not found: expected {known}"


def _too_large(limit: int) -> str:
    return f"the file is too large: expected at most {limit} bytes"
