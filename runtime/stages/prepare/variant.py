"""Variants of weight files, such as `fp16`: a part of their names, which the files in a folder may have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from runtime.checkpoints.checks import VariantError
from runtime.files.located import Folder, SingleFile
from runtime.stage_errors import InvalidArgument

_VARIANT = re.compile(r"[A-Za-z0-9_-]{1,32}")
_Read = TypeVar("_Read")


class Variant:
    """The variant that one field asks for. It must be in one of the folders that are read, if there are any.

    A source without it has its plain files read: a checkpoint and the UNet that replaces its own share the field.
    """

    def __init__(self, field: str, asked: str | None, *, sources: int = 1) -> None:
        """`sources`: how many are read. Raises InvalidArgument for a variant that cannot be part of a file name."""
        if asked is not None and not _VARIANT.fullmatch(asked):
            raise InvalidArgument(field, "may contain only letters, digits, '_' and '-', at most 32")
        self.asked = asked
        self._field, self._unread = field, sources
        self._is_found = False
        self._lacking: dict[str, str] = {}  # folders without it, by field -> why

    def read(self, field: str, source: Folder | SingleFile, read: Callable[[str | None], _Read]) -> _Read:
        """What `read` makes of the source that `field` names, with the files of the variant if it has some.

        Raises what `read` raises, and InvalidArgument when this is the last source and none has the variant.
        """
        self._unread -= 1
        if self.asked is None or isinstance(source, SingleFile):
            found = read(None)
        else:
            try:
                found, self._is_found = read(self.asked), True
            except VariantError as error:
                self._lacking[field] = str(error)
                self._check()  # before plain files are read, which may be large
                found = read(None)
        self._check()
        return found

    def warnings(self) -> list[str]:
        """Of sources that have none, after the last one was read."""
        if self.asked is None or self._is_found:
            return [f"{self._field}: {field}: {why}, ignored" for field, why in self._lacking.items()]
        return [f"{self._field}: a single file has no variants, ignored"]

    def _check(self) -> None:
        if self._lacking and not self._is_found and not self._unread:
            raise InvalidArgument(self._field, "; ".join(self._lacking.values()))
