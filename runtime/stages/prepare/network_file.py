"""Finds the weight file of a network that has one file, in a folder, on the Hub, or alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorikeet.protocol.shorten import listed, shorten
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder_reader import FolderReader
from runtime.files.hub import HubError
from runtime.files.located import SingleFile
from runtime.files.stored_file import FileChangedError, StoredFile
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext

CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
ChooseName = Callable[[Collection[str]], str]  # a file's name of those in the folder; raises CheckpointError


@dataclass(frozen=True)
class NetworkFile:
    """The weight file, and the config.json beside it; None: there is none. `is_single`: the source was a file, so no
    subfolder or name was read."""

    stored: StoredFile
    config: dict[str, Any] | None
    is_single: bool = False


def warn_of_unread_names(path: str, names: Mapping[str, str | None]) -> Iterator[str]:
    """Warnings of fields that select a file of a folder, for a source that is a file. `path`: its field. `names`:
    fields and their values, None where the request gives none."""
    yield from (f"{field}: {path} is a single file, ignored" for field, value in names.items() if value)


def find_network_file(
    field: str, value: str, subfolder: str, choose: ChooseName, context: PrepareContext
) -> NetworkFile:
    """`choose` takes the file's name of those in the folder `subfolder` ("" is the top).

    Raises InvalidArgument that names `field`.
    """
    place = f"{subfolder.strip('/')}/" if subfolder.strip("/") else ""

    def on_hub(names: list[str]) -> list[str]:
        inner = [name.removeprefix(place) for name in names if name.startswith(place)]
        try:
            wanted = choose([name for name in inner if "/" not in name])
        except CheckpointError as error:
            raise HubError(str(error)) from error
        return [place + name for name in inner if name in (wanted, CONFIG)]

    context.check_cancelled()
    try:
        source = context.files.network(field, value, context.request_files, on_hub)
        if isinstance(source, SingleFile):
            return NetworkFile(source.stored, None, is_single=True)
        reader = FolderReader(source)
        path = reader.file(place + choose(reader.names(place)))
        config = reader.json(place + CONFIG) if reader.has(place + CONFIG) else None
        return NetworkFile(context.files.file_of(field, path, context.request_files), config)
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument(field, str(error)) from error


def chosen(*wanted: str) -> ChooseName:
    """Takes the first of these names that the folder has; without a name, its only weight file."""

    def choose(names: Collection[str]) -> str:
        for name in wanted:
            if name in names:
                return name
        weights = sorted(name for name in names if name.endswith(_WEIGHTS))
        if not wanted and len(weights) == 1:
            return weights[0]
        expected = shorten(" or ".join(wanted)) if wanted else "one weight file, or its name"
        raise CheckpointError(f"expected {expected} in the folder, which has {listed(weights) or 'no weight file'}")

    return choose
