#!/bin/sh
# mypy --strict over everything, in one run. The model repository has many files called model.py, which mypy takes
# for one module: it sees each through a link of its own name, and its messages are translated back.
set -eu
cd "$(dirname "$0")/.."
links=.mypy_cache/models
rm -rf "$links"
mkdir -p "$links"
names=
for file in model_repository/*/*/*.py; do
    [ -f "$file" ] || continue
    link=$links/$(echo "${file%.py}" | tr '/-' '__').py
    ln -s "$PWD/$file" "$link"
    names="$names;s|^$link:|$file:|"
done
folders=
for folder in runtime client/lorikeet deploy tests export benchmarks "$links"; do
    [ -n "$(find "$folder" -name '*.py' -print -quit 2>/dev/null)" ] && folders="$folders $folder"
done
status=0
# shellcheck disable=SC2086 # a list of folders
report=$("$VENV/bin/python" -m mypy --strict $folders 2>&1) || status=$?
echo "$report" | sed "s|^$PWD/||$names"
exit "$status"
