#!/usr/bin/env bash
# What the recipes are made of: steps that are done once, jobs side by side, downloads, trainings that go on after a kill.
# A recipe sets HERE (its folder) and OUT (its output folder) and sources this file, which goes to the project's root and
# makes both relative to it, so that recorded commands are the same anywhere.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=$(realpath -ms "$OUT")
[[ -n ${DRY_RUN:-} ]] || mkdir -p "$OUT"
cd "$ROOT"
HERE=${HERE#"$ROOT"/} OUT=${OUT#"$ROOT"/} PLUGIN=nar_plugin
export PATH="$ROOT/.venv/bin:$PATH"
# One thread a process: on few cores several threads a process are many times slower.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Several machines that share a file system: how many, and which of them this is, from 0 on.
MACHINES=${MACHINES:-1} MACHINE=${MACHINE:-0}

say() { if [[ -n ${DRY_RUN:-} ]]; then printf '\n# %s\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}
# Words as one would type them: quoted only where they must be.
words() {
  local word line=''
  for word; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  printf '%s' "${line# }"
}
# A command, or with DRY_RUN=1 what it would be. What a step does beside `run` must not happen in a dry run.
run() { if [[ -n ${DRY_RUN:-} ]]; then words "$@" && echo; else "$@"; fi; }
# run_to FILE COMMAND...: likewise, with its standard output in FILE
run_to() { if [[ -n ${DRY_RUN:-} ]]; then echo "$(words "${@:2}") > $(words "$1")"; else "${@:2}" >"$1"; fi; }

# step NAME [from INPUT...] to OUTPUT... -- COMMAND...
# Runs COMMAND unless the stamp of NAME says that the same commands made these OUTPUTs from these INPUTs and that they are
# whole: outputs still have their size, inputs were not made anew. The commands are what a dry run prints on one CPU that
# has bfloat16: other GPUs, processors, processes or machines do not make another step.
step() {
  local name=$1 list=outputs inputs=() outputs=() input
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
  declare -F "$1" >/dev/null || set -- run "$@"
  if [[ -n ${DRY_RUN:-} ]]; then
    say "$name" && "$@"
    return
  fi
  local stamp=$OUT/.stamps/$name began=$SECONDS
  mkdir -p "$OUT/.stamps"
  if [[ -e $stamp && $(<"$stamp") == "$(_seal "$@")" ]]; then
    echo "== $name: done before"
    return
  fi
  for input in "${inputs[@]}"; do
    [[ -e $input ]] || fail "step $name needs $input: run the steps before it"
    ! _is_half_made "$input" || fail "step $name needs $input, which is not whole: run the step before it again"
  done
  say "$name"
  if ((MACHINE > 0)); then
    "$@" # the first machine writes the stamps
    return
  fi
  printf 'to %s begun\n' "${outputs[@]}" >"$stamp"
  "$@"
  _seal "$@" >"$stamp"
  echo "== $name: $((SECONDS - began)) s"
}

# The commands of a step on one CPU, and the state of its inputs and outputs; an absent file matches nothing.
_seal() {
  commands "$@"
  stat -c 'from %n %s %Y' "${inputs[@]}" 2>/dev/null || ((${#inputs[@]} == 0)) || echo "an input is missing at $RANDOM"
  stat -c 'to %n %s' "${outputs[@]}" 2>/dev/null || ((${#outputs[@]} == 0)) || echo "an output is missing at $RANDOM"
}
commands() (
  local DRY_RUN=1 GPUS=0 BFLOAT16=1 MACHINES=1 MACHINE=0 JOBS=1 MAX_TOKENS=8192
  if declare -F devices >/dev/null; then devices; fi
  "$@"
)

# Whether a step made the file, but not this size of it: it was killed, or the file was cut since.
_is_half_made() {
  local known
  known=$(grep -hs '^to ' "$OUT"/.stamps/* || true)
  [[ -f $1 && $'\n'$known == *$'\n'"to $1 "* && $'\n'$known$'\n' != *$'\n'"to $1 $(stat -c %s "$1")"$'\n'* ]]
}

# together COMMAND...: commands, each written as one word, side by side, $AT_ONCE at once; fails if any fails.
together() {
  local running=0 failed=0 job
  ((${AT_ONCE:=2} > 0)) || fail "AT_ONCE wants a whole number above 0, not $AT_ONCE"
  for job; do
    if [[ -n ${DRY_RUN:-} ]] || (($# == 1)); then
      eval "$job"
      continue
    fi
    if ((running == AT_ONCE)); then
      wait -n || failed=1
      running=$((running - 1))
    fi
    eval "$job" & # in the background: after `||` bash would forget to stop at the first error inside
    running=$((running + 1))
  done
  for ((; running > 0; running--)); do wait -n || failed=1; done
  return "$failed"
}

# train NAME DATA FLAGS...: $TRAINER (fairseq-train) into $OUT/models/NAME, which a killed run goes on with. Afterwards the
# weights alone are in $OUT/models/NAME.pt: the average that the flags of `nar average` in $WEIGHTS ask for, or those of the
# last checkpoint; the validation curve is in NAME.curve.json.
train() {
  local name=$1 folder=$OUT/models/$1 log=$OUT/logs/$1.log weights=(--inputs "$OUT/models/$1/checkpoint_last.pt")
  local command=("${TRAINER[@]}" "$2" --user-dir "$PLUGIN" --save-dir "$folder" --no-progress-bar --log-format simple "${@:3}")
  if ((${#WEIGHTS[@]})); then weights=(--dir "$folder" "${WEIGHTS[@]}"); fi
  if [[ -n ${DRY_RUN:-} ]]; then
    run mkdir -p "${log%/*}"
    echo "$(words "${command[@]}") 2>&1 | tee -a $(words "$log")"
  else
    nar train "$name" --log "$log" --tokens "${TOKENS:-}" --machine "$MACHINE" -- "${command[@]}"
  fi
  if ((MACHINE > 0)); then return; fi
  run nar average "${weights[@]}" "${RELEASED[@]}" --output "$OUT/models/$name.pt"
  run nar curve "$log" --output "$OUT/models/$name.curve.json"
}
TRAINER=(fairseq-train) WEIGHTS=() RELEASED=() # RELEASED: how `nar average` stores weights that others will get
