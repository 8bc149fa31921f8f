#!/usr/bin/env bash
# Every check of the project, all of them even if one fails: lint, format, types, shell scripts, tests.
#   bash scripts/test.sh [--slow] [arguments for pytest]      --slow: the slow tests as well
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 # two processes of one thread each: more threads are far slower

marked=()
if [[ ${1:-} == --slow ]]; then
  marked=(-m "")
  shift
fi

failed=()
check() {
  echo "== ${*:1:2}"
  "$@" || failed+=("$1")
}
mapfile -t shell_scripts < <(find .ci/run examples scripts tests -name '*.sh' -o -path .ci/run)
check ruff check .
check ruff format --check .
check mypy
check shellcheck "${shell_scripts[@]}"
check pytest -n 2 --dist loadfile "${marked[@]}" "$@"

if ((${#failed[@]})); then
  echo "test.sh: failed: ${failed[*]}" >&2
  exit 1
fi
