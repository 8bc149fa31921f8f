#!/usr/bin/env bash
# Shell functions that the recipes share. A recipe sets HERE (its folder) and OUT (its output folder) and sources this
# file, which goes to the project's root and makes both relative to it, so that recorded commands are the same anywhere.
# shellcheck disable=SC2034  # variables are for the recipes
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
cd "$ROOT"
HERE=${HERE#"$ROOT"/} OUT=${OUT#"$ROOT"/} PLUGIN=nar_plugin
export PATH="$ROOT/.venv/bin:$PATH"
# One thread a process, two processes: on few cores several threads a process are many times slower.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# step NAME [from INPUT...] to OUTPUT... -- COMMAND...
# Runs COMMAND unless the stamp of NAME says that this very command made these OUTPUTs from these INPUTs and that they
# are whole: outputs still have their size, inputs were not made anew.
step() {
  local name=$1 list=outputs inputs=() outputs=()
  shift
  while [[ $1 != -- ]]; do
    case $1 in
      from) list=inputs ;;
      to) list=outputs ;;
      *) if [[ $list == inputs ]]; then inputs+=("$1"); else outputs+=("$1"); fi ;;
    esac
    shift
  done
  shift
  local stamp=$OUT/.stamps/$name began=$SECONDS
  mkdir -p "$OUT/.stamps"
  if [[ -e $stamp && $(<"$stamp") == "$(_seal "${*@Q}")" ]]; then
    echo "== $name: done before"
    return
  fi
  rm -f "$stamp"
  say "$name"
  "$@"
  _seal "${*@Q}" >"$stamp"
  echo "== $name: $((SECONDS - began)) s"
}

# The command, and the state of the inputs and outputs of step; an absent file spoils the seal, so that it matches nothing.
_seal() {
  local file
  printf '%s\n' "$1"
  for file in "${inputs[@]}"; do
    stat -c '%n %s %Y' "$file" 2>/dev/null || echo "$file is missing at $RANDOM"
  done
  for file in "${outputs[@]}"; do
    stat -c '%n %s' "$file" 2>/dev/null || echo "$file is missing at $RANDOM"
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
  # both in the background: after `||` bash would forget to stop at the first error inside
  local pids=() pid failed=0
  "${first[@]}" &
  pids+=($!)
  "$@" &
  pids+=($!)
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
  done
  return "$failed"
}

# train NAME DATA FLAGS...: fairseq-train into $OUT/models/NAME, which a killed run goes on with. Progress on the screen,
# everything in $OUT/logs/NAME.log. Afterwards the weights alone are in $OUT/models/NAME.pt: those of the last checkpoint,
# or the average of the last $AVERAGE.
train() {
  local name=$1 data=$2
  shift 2
  local folder=$OUT/models/$name log=$OUT/logs/$name.log weights=(--inputs "$OUT/models/$name/checkpoint_last.pt") asked
  asked="$(stat -c '%n %Y' "$data") ${*@Q}"
  # another command, or data made anew: another training
  [[ -e $folder/command && $(<"$folder/command") == "$asked" ]] || rm -rf "$folder"
  mkdir -p "$folder" "$OUT/logs"
  printf '%s' "$asked" >"$folder/command"
  _mend_last "$folder"
  if [[ -n ${AVERAGE:-} ]]; then weights=(--dir "$folder" --last "$AVERAGE"); fi
  PYTHONUNBUFFERED=1 fairseq-train "$data" --user-dir "$PLUGIN" --save-dir "$folder" --no-progress-bar \
    --log-format simple "$@" 2>&1 | tee -a "$log" | _progress "$name" || fail "training $name failed; see $log"
  python scripts/average_checkpoints.py "${weights[@]}" --output "$OUT/models/$name.pt" >>"$log" 2>&1 ||
    fail "writing the weights of $name failed; see $log"
}

# A kill may cut the host's copy of the newest checkpoint to checkpoint_last.pt; the newest itself is always whole.
_mend_last() {
  local newest last=$1/checkpoint_last.pt
  newest=$(find "$1" -name 'checkpoint_*_*.pt' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d ' ' -f 2-)
  if [[ -n $newest ]] && ! _is_whole "$last"; then cp "$newest" "$last"; fi
}

# A checkpoint is a zip file, and the last thing written of one is a record of 22 bytes that begins with PK 5 6.
_is_whole() { [[ -f $1 && $(tail -c 22 "$1" | head -c 4) == PK$'\005\006' ]]; }

# One short line for each report of fairseq-train. Errors are shown as they are.
_progress() {
  awk -v name="$1" '
    function value(key) { return match($0, "[ |:]" key "[ =][0-9.e-]+") ? substr($0, RSTART + 2 + length(key), RLENGTH - 2 - length(key)) : "-" }
    /\| train_inner \|/ { print "[" name "] update " value("num_updates") ", loss " value("loss") ", " value("wall") " s" }
    /\| valid \|/ { print "[" name "] validated at update " value("num_updates") ", loss " value("loss") ", BLEU " value("bleu") }
    /rror|Exception/ { print "[" name "] " $0 }
    { fflush() }'
}
