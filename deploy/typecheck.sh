#!/bin/sh
# Runs mypy --strict on the whole tree, in one run, then checks the calls of TensorRT: TensorRT-RTX is installed.
# mypy takes the many files called model.py in the model repository for one module. So each gets a link with a unique
# name, and sed restores the file's name in the messages.
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
for flavour in tensorrt-10 tensorrt-11; do
    deploy/typecheck_tensorrt.sh "$flavour" || status=$?
done
exit "$status"
