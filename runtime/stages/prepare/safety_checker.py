"""The safety checker of a request: that of the server's setting."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder_reader import FolderReader
from runtime.checkpoints.read_safety_checker import read_safety_checker
from runtime.files.located import Folder
from runtime.files.stored_file import FileChangedError
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.network_file import CONFIG, chosen

_FIELD = "enable_safety_checker"
_NAMES = ("model.safetensors", "pytorch_model.bin")


def resolve(request: ImageToImageInput, context: PrepareContext) -> Component | None:
    """The network; None: the request does not want it. Raises InvalidArgument when the server has none."""
    if not request.enable_safety_checker:
        return None
    place = context.settings.safety_checker
    if place is None:
        raise InvalidArgument(_FIELD, "this server has none: its operator sets LORIKEET_SAFETY_CHECKER to its folder")
    reader = FolderReader(Folder(place, place))
    try:
        path = reader.file(chosen(*_NAMES)(reader.names("")))
        stored = context.files.file_of(_FIELD, path, context.request_files)
        return read_safety_checker(stored, reader.json(CONFIG))
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument(_FIELD, f"the folder of LORIKEET_SAFETY_CHECKER cannot be used: {error}") from error
