"""The InsightFace pack of an IP-Adapter: its files found. What they hold is checked where they are run."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder_reader import FolderReader
from runtime.files.face_pack import names_in_folder, pack_names
from runtime.files.located import Folder
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.plan import FacePackPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext


def resolve(field: str, value: str, context: PrepareContext) -> FacePackPlan:
    """Raises InvalidArgument that names `field`."""
    context.check_cancelled()
    try:
        source = context.files.face_pack(field, value, context.request_files)
        if isinstance(source, Folder):
            reader = FolderReader(source)
            paths = [reader.file(name) for name in pack_names(names_in_folder(source.path))]
            source = tuple(context.store.digest_local(path, context.check_cancelled) for path in paths)
    except (CheckpointError, WeightFileError, FileChangedError, OSError) as error:
        raise InvalidArgument(field, str(error)) from error
    files = [WeightFile(path=one.path, digest=one.digest, fingerprint=one.fingerprint) for one in source]
    return FacePackPlan(field=field, files=tuple(files))
