#!/bin/sh
# Runs set-up steps with the system's Python: deploy/setup.sh venv|tools|clients ... (see deploy/setup/).
# The Triton stub loads the system's libpython, so pyenv's or conda's Python does not work here, even if it is the
# first on PATH. PYTHON=/usr/bin/python3.x selects another system Python.
set -eu
cd "$(dirname "$0")/.."

fits() {
    [ -x "$1" ] && "$1" -c '
import sys
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 12) and sys.prefix == "/usr"))' 2>/dev/null
}

pick() {
    for candidate in /usr/bin/python3 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3.10; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

if [ -n "${PYTHON:-}" ]; then
    python=$(command -v "$PYTHON" || true)
    if ! fits "$python"; then
        echo "lorikeet: PYTHON=$PYTHON is not one of the system's Pythons 3.10 to 3.12 (/usr/bin/python3.x)" >&2
        exit 1
    fi
else
    python=$(pick)
    if [ -z "$python" ]; then
        echo "lorikeet: no Python 3.10 to 3.12 in /usr/bin: apt-get install python3 python3-venv" >&2
        exit 1
    fi
fi
exec "$python" -B -m deploy.setup --venv "${VENV:-.venv}" --tools "${LORIKEET_TOOLS:-.tools}" "$@"
