#!/bin/sh
# Checks the calls of one TensorRT with mypy: deploy/typecheck_tensorrt.sh tensorrt_rtx|tensorrt-10|tensorrt-11 [options]
# Reads the stub in typings/ and the files that call TensorRT alone. The modules rtx_* call what TensorRT-RTX alone has.
set -eu
cd "$(dirname "$0")/.."
flavour=$1
shift
case $flavour in
tensorrt_rtx) stubs=typings is_rtx=--always-true left_out='' ;;
*) stubs=typings/$flavour is_rtx=--always-false left_out='rtx_*' ;;
esac
files=$(find runtime/engines/tensorrt export/tensorrt -name '*.py' ! -name "$left_out")
# shellcheck disable=SC2086 # a list of files
MYPYPATH=$stubs "${VENV:-.venv}/bin/python" -m mypy --config-file= --python-version 3.10 --explicit-package-bases \
    --follow-imports skip --ignore-missing-imports --check-untyped-defs $is_rtx IS_RTX \
    --cache-dir ".mypy_cache/$flavour" --no-error-summary "$@" $files
