"""The files that a request carries: each distinct content once, referred to as `tensor:<i>`."""

from pathlib import Path

from PIL import Image

from lorikeet.client.picture import encode
from lorikeet.protocol.errors import INVALID_ARG, make_error

# A gRPC message holds at most 2 GiB; 16 MiB of it are reserved for everything but the files.
MAX_FILES_BYTES = 2**31 - 2**24


class FileTable:
    """The entries of the FILES tensor, in order of first use."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._size = 0

    @property
    def contents(self) -> list[bytes]:
        """The files; entry i is what `tensor:<i>` refers to."""
        return list(self._index)

    def add(self, content: bytes) -> str:
        """`tensor:<i>` of a content. Raises InvalidRequest when the files exceed `MAX_FILES_BYTES`."""
        if content not in self._index:
            _require_fit(self._size + len(content))
            self._size += len(content)
        return f"tensor:{self._index.setdefault(content, len(self._index))}"

    def add_objects(self, value: object) -> object:
        """`value` (nested lists and dicts) with each Path, bytes and PIL image replaced by a reference.

        A folder becomes its path as text. Raises InvalidRequest for a Path that does not exist, and for an image that
        cannot be sent.
        """
        if isinstance(value, dict):
            return {key: self.add_objects(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.add_objects(item) for item in value]
        if isinstance(value, (bytes, bytearray)):
            return self.add(bytes(value))
        if isinstance(value, Image.Image):
            return self.add(encode(value))
        if isinstance(value, Path):
            return str(value) if value.is_dir() else self._add_path(value)
        return value

    def add_local(self, value: str) -> str:
        """A reference if `value` names a regular local file, else (URL, Hub id, ...) `value` itself."""
        return self._add_path(Path(value)) if _is_local_file(value) else value

    def _add_path(self, path: Path) -> str:
        try:
            _require_fit(path.stat().st_size)  # before reading it into memory
            return self.add(path.read_bytes())
        except OSError as error:
            raise make_error(f"cannot read {path}: {error.strerror}", INVALID_ARG) from error


def _require_fit(size: int) -> None:
    if size > MAX_FILES_BYTES:
        limit = f"the local files exceed {MAX_FILES_BYTES} bytes"
        raise make_error(f"{limit}: give the large ones as URLs that the server can fetch", INVALID_ARG)


def _is_local_file(value: str) -> bool:
    if value.startswith(("data:", "tensor:")) or "://" in value:
        return False
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # a name that is too long, or that holds a null character
        return False
