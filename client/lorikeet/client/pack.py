"""Makes of what a caller passes a valid request and its files."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lorikeet.client.file_table import FileTable
from lorikeet.protocol.errors import INVALID_ARG, make_error
from lorikeet.schema import ImageToImageInput, describe_errors, file_refs, map_file_refs

# A checkpoint has gigabytes, so text in these fields names one on the server. (A Path or bytes is still sent.)
_SERVER_SIDE = {"model_name", "unet_name"}


def pack(
    request: ImageToImageInput | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> tuple[ImageToImageInput, list[bytes]]:
    """The request with `fields` in place of its own, local files replaced by `tensor:<i>`, and those files.

    A field that takes a path or URL also takes a Path, bytes or a PIL image. Raises InvalidRequest naming the field.
    """
    if isinstance(request, ImageToImageInput):
        request = request.model_dump(exclude_unset=True)
    table = FileTable()
    values = {name: table.add_objects(value) for name, value in {**(request or {}), **fields}.items()}
    try:
        valid = ImageToImageInput.model_validate(values)
    except ValidationError as error:
        raise make_error(describe_errors(error), INVALID_ARG) from error
    packed = map_file_refs(valid, lambda field, value: value if field in _SERVER_SIDE else table.add_local(value))
    used = {value for _, value in file_refs(packed)}
    if any(f"tensor:{i}" not in used for i in range(len(table.contents))):
        raise make_error("a Path, bytes or an image was given for a field that takes no file", INVALID_ARG)
    return packed, table.contents
