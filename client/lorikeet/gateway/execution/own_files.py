"""Files of the gateway that a request names: they travel to Triton with the request, not over the network."""

from __future__ import annotations

from collections.abc import Mapping

from lorikeet.client.file_table import MAX_FILES_BYTES
from lorikeet.gateway.api_error import FieldErrors, field_error
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.files.stored_file import StoredFile
from lorikeet.gateway.locations import split_location
from lorikeet.schema import ImageToImageInput, file_refs, map_file_refs


async def find_own_files(request: ImageToImageInput, store: FileStore, owner: str) -> dict[str, StoredFile]:
    """The gateway's own files by the addresses in a request.

    Raises FieldErrors for a file that does not exist (any more), that only another key may read, or with which all
    files together are too large for a request of Triton.
    """
    found: dict[str, StoredFile] = {}
    size = 0
    for location, value in file_refs(request):
        name = store.name_of(value)
        if name is None or value in found:
            continue
        file = await store.find(name)
        if file is None or not may_read(file, owner):
            raise _absent(location)
        size += file.size
        if size > MAX_FILES_BYTES:
            problem = f"the uploaded files of this request exceed {MAX_FILES_BYTES} bytes; use fewer or smaller ones"
            raise field_error(split_location(location), problem)
        found[value] = file
    return found


async def pack_own_files(
    request: ImageToImageInput, found: Mapping[str, StoredFile], store: FileStore
) -> tuple[ImageToImageInput, list[bytes]]:
    """The request with `tensor:<i>` in place of the addresses of `find_own_files`, and those files.

    It holds them in memory, so call it when a server is free. Raises FieldErrors for a file that has expired since.
    """
    contents = []
    for url, file in found.items():
        try:
            contents.append(await store.read(file))
        except FileNotFoundError as error:
            raise _absent(next(location for location, value in file_refs(request) if value == url)) from error
    places = {url: f"tensor:{index}" for index, url in enumerate(found)}
    return map_file_refs(request, lambda _, value: places.get(value, value)), contents


def may_read(file: StoredFile, key_id: str | None) -> bool:
    """Whether the holder of a key may read the file; None: somebody without a key."""
    return not file.is_private or file.owner == key_id


def _absent(location: str) -> FieldErrors:
    return field_error(split_location(location), "the gateway has no such file: it may have expired; upload it again")
