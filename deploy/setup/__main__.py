"""`python -m deploy.setup venv tools clients`: called through deploy/setup.sh, which picks the Python."""

import argparse
import signal
import sys
from pathlib import Path

from deploy.setup.clients import Clients
from deploy.setup.common import SetupError, say
from deploy.setup.tools import Tools
from deploy.setup.venv import Environment


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy.setup", description="Creates the Python environment and the tools folder."
    )
    parser.add_argument("steps", nargs="+", choices=("venv", "tools", "clients"))
    parser.add_argument("--venv", type=Path, required=True, help="folder of the virtual environment")
    parser.add_argument("--tools", type=Path, required=True, help="folder of the server, perf_analyzer and the clients")
    arguments = parser.parse_args()

    environment = Environment(arguments.venv.absolute())
    folder = arguments.tools.absolute()
    steps: dict[str, Environment | Tools | Clients] = {
        "venv": environment,
        "tools": Tools(folder, environment.python),
        "clients": Clients(folder, environment.python),
    }
    pending = [steps[name] for name in arguments.steps if not steps[name].is_ready()]
    try:
        for step in pending:
            step.check_system()
        for step in pending:
            step.make()
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; run it again to resume")
        return 130
    return 0


def stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main())
