"""What a caller passes, made into a valid request and its files."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lorikeet.client.file_table import FileTable
from lorikeet.protocol.errors import make_error
from lorikeet.schema import ImageToImageInput, describe_errors, file_refs, map_file_refs

# Checkpoints are gigabytes: text names one where the server is. (A Path, or bytes, is sent along all the same.)
_NAMED = {"model_name", "unet_name"}


def pack(
    request: ImageToImageInput | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> tuple[ImageToImageInput, list[bytes]]:
    """The request with `fields` laid over it, local files replaced by `tensor:<i>`, and those files.

    Where a field takes a path or URL it may be a Path, bytes or a PIL image as well.
    Raises InvalidRequest, naming the field.
    """
    if isinstance(request, ImageToImageInput):
        request = request.model_dump(exclude_unset=True)
    table = FileTable()
    values = {name: table.add_objects(value) for name, value in {**(request or {}), **fields}.items()}
    try:
        valid = ImageToImageInput.model_validate(values)
    except ValidationError as error:
        raise make_error(describe_errors(error), "INVALID_ARG") from error
    packed = map_file_refs(valid, lambda field, value: value if field in _NAMED else table.add_local(value))
    used = {value for _, value in file_refs(packed)}
    if any(f"tensor:{i}" not in used for i in range(len(table.contents))):
        raise make_error("a file was given for a field that takes none", "INVALID_ARG")
    return packed, table.contents
