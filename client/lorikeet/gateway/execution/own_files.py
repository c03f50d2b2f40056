"""Files of the gateway that a request names: they travel to Triton with the request, not over the network."""

from __future__ import annotations

from lorikeet.gateway.api_error import field_error
from lorikeet.gateway.files.store import FileStore, StoredFile
from lorikeet.gateway.locations import split_location
from lorikeet.schema import ImageToImageInput, file_refs, map_file_refs


async def pack_own_files(
    request: ImageToImageInput, store: FileStore, owner: str
) -> tuple[ImageToImageInput, list[bytes]]:
    """The request with `tensor:<i>` in place of the gateway's own addresses, and those files.

    Raises FieldErrors for a file that does not exist (any more), or that only another key may read.
    """
    found: dict[str, str] = {}
    contents: list[bytes] = []
    for location, value in file_refs(request):
        name = store.name_of(value)
        if name is None or value in found:
            continue
        file = await store.find(name)
        if file is None or not may_read(file, owner):
            raise field_error(split_location(location), "the gateway has no such file; its life may have ended")
        found[value] = f"tensor:{len(contents)}"
        contents.append(await store.read(file))
    return map_file_refs(request, lambda _, value: found.get(value, value)), contents


def may_read(file: StoredFile, key_id: str) -> bool:
    """Whether the holder of a key may read the file."""
    return not file.is_private or file.owner == key_id
