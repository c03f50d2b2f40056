"""The README draws the processes as they are configured, and its sentences are short."""

from __future__ import annotations

import re

from runtime.settings import ROOT
from tests.model_configs import model_config, model_names

README = (ROOT / "README.md").read_text("utf-8")
ENSEMBLE = "lora_image_to_image"
_PROCESS = re.compile(r"[├└]─ (\w+) +([A-Z_ ]+) → ([A-Z_ ]+?)(?:  .*)?")


def _drawn() -> dict[str, tuple[set[str], set[str]]]:
    """Process -> the tensors that it takes and gives, as the README draws them, in the order of the lines."""
    found = re.search(r"<!-- begin processes[^\n]*\n(.*?)<!-- end processes -->", README, re.DOTALL)
    assert found
    lines = (_PROCESS.fullmatch(line.strip()) for line in found[1].splitlines())
    return {line[1]: (set(line[2].split()), set(line[3].split())) for line in lines if line}


def test_the_drawn_processes_are_those_of_the_model_repository() -> None:
    models = model_names() - {ENSEMBLE}
    drawn = _drawn()
    assert drawn.keys() == models
    for model, (takes, gives) in drawn.items():
        config = model_config(model)
        assert takes == {tensor.name for tensor in config.input}, model
        assert gives == {tensor.name for tensor in config.output}, model


def test_the_drawn_chain_is_the_ensemble() -> None:
    steps = [step.model_name for step in model_config(ENSEMBLE).ensemble_scheduling.step]
    assert [name for name in _drawn() if name != "jobs"] == steps


def test_the_drawn_public_tensors_are_those_of_the_ensemble() -> None:
    public = re.findall(r"^ +│  ([A-Z_ ]+)$", README, re.MULTILINE)
    config = model_config(ENSEMBLE)
    assert [set(line.split()) for line in public] == [
        {tensor.name for tensor in config.input},
        {tensor.name for tensor in config.output},
    ]


def test_no_sentence_is_longer_than_25_words() -> None:
    """Tables, code and generated parts are no sentences; a list item's bold heading is not counted."""
    text = re.sub(r"```.*?```|<!-- (\w+):.*?<!-- /\1 -->", "", README, flags=re.DOTALL)
    text = re.sub(r"^(\||!\[|#).*$", "", text, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^- ", text, flags=re.MULTILINE)
    sentences = [sentence for block in blocks for sentence in re.split(r"(?<=[.;:!?])\s+", " ".join(block.split()))]
    assert [sentence for sentence in sentences if len(sentence.split()) > 25] == []
