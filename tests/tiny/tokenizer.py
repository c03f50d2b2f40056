"""A CLIP tokenizer with a vocabulary of our own: CLIP's bytes, CLIP's special tokens, our merges."""

import json
from pathlib import Path
from typing import Any

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
MAX_TOKENS = 77
WORDS = (
    "a an and art astronaut at background beautiful bird black blue blurry bright brown by car castle "
    "cat city cloud color dark day detailed digital dog face field flower forest from girl glass gold "
    "grass green hair high horse house illustration image in light lorikeet low man moon mountain night "
    "of old on painting photo picture portrait quality rain realistic red river road sea shot sky small "
    "snow soft star street style sun sunset the to tree ugly under water white wild with woman wood "
    "yellow young"
)


def write_tokenizer(folder: Path, pad: str) -> None:
    """Write the four files of a genuine slow CLIP tokenizer into `folder`; `pad` is the padding token."""
    folder.mkdir(parents=True)
    merges = _merges()
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate(vocabulary())})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {
        "bos_token": _added(START),
        "eos_token": _added(END),
        "pad_token": pad,
        "unk_token": _added(END),
    }
    _write_json(folder / "special_tokens_map.json", special)
    config = {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", **_added(START)},
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **_added(END)},
        "errors": "replace",
        "model_max_length": MAX_TOKENS,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", **_added(END)},
    }
    _write_json(folder / "tokenizer_config.json", config)


def vocabulary() -> list[str]:
    """All tokens in the order of their ids: "!" is 0 and `END` is the highest, as in CLIP's own."""
    symbols = _byte_symbols()
    merged = ["".join(pair) for pair in _merges()]
    return [*symbols, *(symbol + WORD_END for symbol in symbols), *merged, START, END]


def _merges() -> list[tuple[str, str]]:
    """Merges that build each of `WORDS` from its left; other words fall apart into prefixes and letters."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS.split():
        letters = [*word[:-1], word[-1] + WORD_END]
        prefix = letters[0]
        for letter in letters[1:]:
            merges[prefix, letter] = None
            prefix += letter
    return list(merges)


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes: printable bytes first, then the rest from U+0100 up."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


def _added(token: str) -> dict[str, Any]:
    return {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
