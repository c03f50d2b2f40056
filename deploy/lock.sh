#!/bin/sh
# Writes requirements.lock: one set of pins for Python 3.10 to 3.12 on Linux, with and without CUDA.
# Keeps the pins that still fit; `make lock UPGRADE=1` selects the newest release of every package.
set -eu
cd "$(dirname "$0")/.."
uv_home=$LORIKEET_TOOLS/uv
[ -x "$uv_home/bin/uv" ] || {
    "$VENV/bin/python" -m venv "$uv_home"
    "$uv_home/bin/pip" install --quiet uv
}
next=$LORIKEET_TOOLS/requirements.lock.next
trap 'rm -f "$next"' EXIT
cp requirements.lock "$next" 2>/dev/null || true
[ -f client/pyproject.toml ] && client=client/pyproject.toml || client=
# shellcheck disable=SC2086 # no client, no argument
"$uv_home/bin/uv" pip compile --quiet --universal --python-version 3.10 --no-python-downloads --all-extras \
    ${UPGRADE:+--upgrade} --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --output-file "$next" pyproject.toml $client >/dev/null
{
    cat <<'END'
# Every package that Lorikeet runs with, for Python 3.10 to 3.12 on Linux. Used as constraints (pip install -c), so
# what a set-up does not need (the CUDA packages of a CPU build of torch) is not installed.
# Written by `make lock` from pyproject.toml and client/pyproject.toml; not edited by hand.
END
    # removes the markers that hold on every supported machine
    grep -vE '^(#|-e|lorikeet|\.)' "$next" | sed -E "
        s/platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'/HERE/
        s/python_full_version < '3.13' and HERE/HERE/
        s/ and HERE$//
        s/ ; HERE$//"
} >requirements.lock
echo "lorikeet: wrote requirements.lock ($(grep -c == requirements.lock) pins)"
