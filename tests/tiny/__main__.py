"""`python -m tests.tiny FOLDER`: write every tiny checkpoint and LoRA into FOLDER."""

import argparse
from pathlib import Path

from tests.tiny.folder import write_all


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tiny", description=__doc__)
    parser.add_argument("folder", type=Path)
    write_all(parser.parse_args().folder)


if __name__ == "__main__":
    main()
