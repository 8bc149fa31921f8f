#!/usr/bin/env bash
# Shell functions that the recipes share. A recipe sets OUT (its output folder) and sources this file.
# shellcheck disable=SC2034  # variables are for the recipes
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PLUGIN=$ROOT/nar_plugin
export PATH="$ROOT/.venv/bin:$PATH"
# One thread a process, two processes: on few cores several threads a process are many times slower.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# step NAME OUTPUT... -- COMMAND...
# Runs COMMAND unless the stamp of NAME says that this very command made these OUTPUTs and they still have their size.
step() {
  local name=$1 outputs=()
  shift
  while [[ $1 != -- ]]; do
    outputs+=("$1")
    shift
  done
  shift
  local stamp=$OUT/.stamps/$name
  mkdir -p "$OUT/.stamps"
  if [[ -e $stamp && $(<"$stamp") == "$(_whole "$*" "${outputs[@]}")" ]]; then
    echo "== $name: done before"
    return
  fi
  rm -f "$stamp"
  local began=$SECONDS
  say "$name"
  "$@"
  _whole "$*" "${outputs[@]}" >"$stamp"
  echo "== $name: $((SECONDS - began)) s"
}

# The command and the size of every output; an absent one spoils the line, so that it matches nothing.
_whole() {
  local output
  printf '%s\n' "$1"
  shift
  for output in "$@"; do
    stat -c '%n %s' "$output" 2>/dev/null || echo "$output is missing at $RANDOM"
  done
}

# both COMMAND1 : COMMAND2: two steps at once on two cores; fails if either fails.
both() {
  local first=()
  while [[ $1 != : ]]; do
    first+=("$1")
    shift
  done
  shift
  "${first[@]}" &
  local pid=$! failed=0
  "$@" || failed=1
  wait "$pid" || failed=1
  return "$failed"
}

# train NAME DATA FLAGS...: fairseq-train into $OUT/models/NAME, which a killed run goes on with. Progress on the screen,
# everything in $OUT/logs/NAME.log. Afterwards the weights alone are in $OUT/models/NAME.pt: those of the last checkpoint,
# or the average of the last $AVERAGE.
train() {
  local name=$1 data=$2
  shift 2
  local folder=$OUT/models/$name log=$OUT/logs/$name.log weights=(--inputs "$OUT/models/$name/checkpoint_last.pt")
  mkdir -p "$folder" "$OUT/logs"
  if [[ -n ${AVERAGE:-} ]]; then weights=(--dir "$folder" --last "$AVERAGE"); fi
  PYTHONUNBUFFERED=1 fairseq-train "$data" --user-dir "$PLUGIN" --save-dir "$folder" --no-progress-bar \
    --log-format simple "$@" 2>&1 | tee -a "$log" | _progress "$name" || fail "training $name failed; see $log"
  python "$ROOT/scripts/average_checkpoints.py" "${weights[@]}" --output "$OUT/models/$name.pt" >>"$log" 2>&1 ||
    fail "writing the weights of $name failed; see $log"
}

# One short line for each report of fairseq-train. Errors are shown as they are.
_progress() {
  awk -v name="$1" '
    function value(key,   m) { return match($0, key "[ =][0-9.e-]+") ? substr($0, RSTART, RLENGTH) : "" }
    /\| train_inner \|/ { print "[" name "] update " value("num_updates") ", " value("loss") ", " value("wall") " s" }
    /\| valid \|/ { print "[" name "] valid: update " value("num_updates") ", " value("loss") " " value("bleu") }
    /rror|Exception/ { print "[" name "] " $0 }
    { fflush() }'
}
