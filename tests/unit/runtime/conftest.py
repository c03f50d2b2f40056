"""What the tests of `runtime/` share: settings, a job table, a store, sources of files, and the tiny checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from huggingface_hub import constants

from lorikeet.net.fetch import Fetcher
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.jobs.job_table import JobRef, JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.resolving import PICTURE, WEIGHTS
from tests.unit.runtime.tiny_checkpoints import copy_folder, read_checkpoint
from tests.unit.runtime.web import Web

# On cores that others use too, two threads that wait for each other are slower than one.
torch.set_num_threads(1)
# And such a machine is no clock.
hypothesis.settings.register_profile("runtime", deadline=None)
hypothesis.settings.load_profile("runtime")


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.stop()


@pytest.fixture
def fetcher(web: Web) -> Fetcher:
    return Fetcher([web.host])


@pytest.fixture
def settings(tmp_path: Path, web: Web) -> Settings:
    """`tmp_path/allowed` is the only folder that requests may name, `web` the only host."""
    (tmp_path / "allowed").mkdir()
    return Settings(
        store=tmp_path / "store",
        local_paths=(tmp_path / "allowed",),
        fetch_allow=(web.host,),
        device="cpu",
        precision="float32",
        threads=1,
    )


@pytest.fixture
def job_table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path / "job_table")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", budget=1 << 30)


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    """The tiny checkpoints, their files linked: to change one, write another in its place."""
    return copy_folder(tiny, tmp_path / "tiny")


@pytest.fixture
def sd15_folder(tiny: Path, tmp_path: Path) -> Path:
    """An SD 1.5 checkpoint, its files linked: to change one, write another in its place."""
    return copy_folder(tiny / "sd15", tmp_path / "checkpoint")


@pytest.fixture
def tiny_allowed(settings: Settings, tiny: Path) -> Path:
    """The folder that requests may name, with the tiny checkpoints in it."""
    return copy_folder(tiny, settings.local_paths[0])


@pytest.fixture
def stage(settings: Settings, tiny_allowed: Path, job_table: JobTable) -> Iterator[PrepareStage]:
    """The stage `prepare`. Requests may name the tiny checkpoints."""
    found = PrepareStage(settings, job_table)
    yield found
    found.close()


@pytest.fixture
def sources(settings: Settings, store: Store) -> FileResolver:
    return FileResolver(settings, store)


@pytest.fixture
def request_(store: Store) -> ResolveContext:
    """Three files were sent along."""
    return ResolveContext([b"\0zero", PICTURE, WEIGHTS], store.pins(), lambda: None)


@pytest.fixture
def allowed(settings: Settings) -> Path:
    return settings.local_paths[0]


@pytest.fixture
def secret(tmp_path: Path, allowed: Path) -> Path:
    """A file outside the allowed folder, with a link to it inside."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (allowed / "link").symlink_to(secret)
    (allowed / "out").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    (allowed / "dir").mkdir()
    (allowed / "dir" / "file").write_bytes(WEIGHTS)
    (allowed / "dir" / "picture").write_bytes(PICTURE)
    (allowed / "inner").symlink_to(allowed / "dir")
    return secret


@pytest.fixture
def hub(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """`web` as the Hub, with an empty cache. (The Hub's library reads the environment when it is imported.)"""
    endpoint = f"http://{web.host}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return web


@pytest.fixture(scope="session")
def sd15(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd15")


@pytest.fixture(scope="session")
def sdxl(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sdxl")


@pytest.fixture(scope="session")
def sd2(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd2")


@pytest.fixture
def job(job_table: JobTable) -> JobRef:
    found = job_table.open("a", "secret", 9)
    assert found is not None
    return found


@pytest.fixture
def plan(sd15: Checkpoint, job: JobRef) -> Plan:
    return make_plan(sd15, job)
