"""The progress line of an export."""

from __future__ import annotations

import logging

import pytest

from export.progress import progress_of


def test_warnings_are_logged_again_after_an_export(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("lorikeet")
    with pytest.raises(KeyboardInterrupt), progress_of(["unet"]):
        log.warning("during the export")
        raise KeyboardInterrupt
    log.warning("after the export")
    assert [record.getMessage() for record in caplog.records] == ["after the export"]
