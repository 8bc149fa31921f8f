#!/usr/bin/env bash
# Shell functions that the recipes share. A recipe sets HERE (its folder) and OUT (its output folder) and sources this
# file, which goes to the project's root and makes both relative to it, so that recorded commands are the same anywhere.
# shellcheck disable=SC2034  # variables are for the recipes
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=$(realpath -ms "$OUT")
[[ -n ${DRY_RUN:-} ]] || mkdir -p "$OUT"
cd "$ROOT"
HERE=${HERE#"$ROOT"/} OUT=${OUT#"$ROOT"/} PLUGIN=nar_plugin
export PATH="$ROOT/.venv/bin:$PATH"
# One thread a process, two processes: on few cores several threads a process are many times slower.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# Several machines that share a file system: how many, and which of them this is, from 0 on.
MACHINES=${MACHINES:-1} MACHINE=${MACHINE:-0}

say() { printf '\n== %s\n' "$*"; }
words() { printf '%q ' "$@"; }
# A command, or with DRY_RUN=1 what it would be.
run() {
  if [[ -n ${DRY_RUN:-} ]]; then words "$@" && echo; else "$@"; fi
}
fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# step NAME [from INPUT...] to OUTPUT... -- COMMAND...
# Runs COMMAND unless the stamp of NAME says that this very command made these OUTPUTs from these INPUTs and that they
# are whole: outputs still have their size, inputs were not made anew. A COMMAND that is a function is known by its lines;
# $SEAL says what else it depends on. With $ONLY, all steps but the one of that name are passed over.
STEPS=()
step() {
  local name=$1 list=outputs inputs=() outputs=() input
  STEPS+=("$name")
  if [[ -n ${ONLY:-} && $ONLY != "$name" ]]; then return; fi
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
  if [[ -n ${DRY_RUN:-} ]]; then
    say "$name" && "$@"
    return
  fi
  local stamp=$OUT/.stamps/$name began=$SECONDS
  mkdir -p "$OUT/.stamps" "$OUT/.begun"
  if [[ -e $stamp && $(<"$stamp") == "$(_seal "$@")" ]]; then
    _forget_begun
    echo "== $name: done before"
    return
  fi
  ((MACHINE > 0)) || rm -f "$stamp"
  for input in "${inputs[@]}"; do [[ -e $input ]] || fail "step $name needs $input: run the steps before it"; done
  input=$(_half_made "${inputs[@]}")
  [[ -z $input ]] || fail "step $name needs $input, which is not whole: run the step before it again"
  say "$name"
  if ((MACHINE > 0)); then
    "$@" # the first machine keeps the books
    return
  fi
  printf '%s\n' "${outputs[@]}" >"$OUT/.begun/$name"
  "$@"
  _seal "$@" >"$stamp"
  _forget_begun
  echo "== $name: $((SECONDS - began)) s"
}

# The outputs of a step are whole, whichever step began to make them before.
_forget_begun() {
  local file rest
  while IFS= read -r file; do
    rest=$(grep -vxFf <(printf '%s\n' "${outputs[@]}") "$file" || true)
    if [[ -n $rest ]]; then echo "$rest" >"$file"; else rm -f "$file"; fi
  done < <(grep -rlxFf <(printf '%s\n' "${outputs[@]}") "$OUT/.begun" || true)
}

# The first of these files, if any, that a step began to make and has not ended, or that was cut since: it is named in .begun, or
# stamps know it by no size that it has.
_half_made() {
  local file there=() books=()
  for file; do if [[ -f $file ]]; then there+=("$file"); fi; done
  for file in "$OUT"/.begun/* "$OUT"/.stamps/*; do if [[ -f $file ]]; then books+=("$file"); fi; done
  if ((${#there[@]} == 0)); then return; fi
  stat -c '%n %s' "${there[@]}" |
    awk '
      FILENAME == "-" { size[substr($0, 1, length($0) - length($NF) - 1)] = $NF; next }
      FILENAME ~ "/[.]begun/[^/]*$" { if ($0 in size) begun[$0] }
      FILENAME ~ "/[.]stamps/[^/]*$" {
        name = substr($0, 1, length($0) - length($NF) - 1)
        if (name in size) { known[name]; if ($NF == size[name]) whole[name] }
      }
      END { for (name in size) if (name in begun || name in known && !(name in whole)) { print name; exit } }
    ' - "${books[@]}" 2>/dev/null || true
}

# The command, and the state of the inputs and outputs of step; an absent file spoils the seal, so that it matches nothing.
_seal() {
  printf '%s\n' "${*@Q}" "${SEAL:-}"
  declare -f "$1" || true
  if ((${#inputs[@]})); then stat -c '%n %s %Y' "${inputs[@]}" 2>/dev/null || echo "an input is missing at $RANDOM"; fi
  if ((${#outputs[@]})); then stat -c '%n %s' "${outputs[@]}" 2>/dev/null || echo "an output is missing at $RANDOM"; fi
}

# The last line of a recipe: an $ONLY that named no step has done nothing.
check_only() {
  if [[ -n ${ONLY:-} && " ${STEPS[*]} " != *" $ONLY "* ]]; then fail "no step is called $ONLY; there are: ${STEPS[*]}"; fi
}

# together COMMAND1 : COMMAND2 : ...: steps side by side, $JOBS at once (two cores: 2); fails if any fails.
together() {
  local jobs=0 failed=0 command=() word
  ((${JOBS:-2} > 0)) || fail "JOBS wants a whole number above 0, not $JOBS"
  if [[ -n ${ONLY:-} ]]; then jobs=-1; fi # one does something, and a background would forget what steps there are
  for word in "$@" :; do
    if [[ $word != : ]]; then
      command+=("$word")
      continue
    fi
    if ((${#command[@]} == 0)); then continue; fi
    if ((jobs < 0)); then
      "${command[@]}"
    else
      if ((jobs == ${JOBS:-2})); then
        wait -n || failed=1
        jobs=$((jobs - 1))
      fi
      # in the background: after `||` bash would forget to stop at the first error inside
      "${command[@]}" &
      jobs=$((jobs + 1))
    fi
    command=()
  done
  for ((; jobs > 0; jobs--)); do wait -n || failed=1; done
  return "$failed"
}

# fetch FILE SUM URL...: FILE, a gzip or zip file, from the folder $OFFLINE or else from the first URL that serves it
# whole. An interrupted download goes on. SUM is an MD5 or a SHA256, or - where none is known: then only the archive's own
# check is made. What came is written down in sha256sums beside it.
fetch() {
  local file=$1 sum=$2 url part=$1.part
  shift 2
  if [[ -n ${DRY_RUN:-} ]]; then
    if [[ -n ${OFFLINE:-} ]]; then run cp "$OFFLINE/${file##*/}" "$file"; else run curl --output "$file" "$1"; fi
    return
  fi
  mkdir -p "$(dirname "$file")"
  if [[ -n ${OFFLINE:-} ]]; then
    [[ -f $OFFLINE/${file##*/} ]] || fail "--offline: no ${file##*/} in $OFFLINE"
    cp "$OFFLINE/${file##*/}" "$part"
    _is_served "$part" "$sum" "$OFFLINE/${file##*/}" || exit 2
  else
    command -v curl >/dev/null || fail "curl is needed to download; or put the files into a folder: --offline DIR"
    for url in "$@" ""; do
      [[ -n $url ]] || fail "${file##*/} could not be had; put it into a folder yourself: --offline DIR"
      _download "$url" "$part" || continue # what came is kept, for the next call to go on with
      if _is_served "$part" "$sum" "$url"; then break; fi
      rm -f "$part"
    done
  fi
  mv "$part" "$file"
  (
    cd "${file%/*}"
    if [[ -e sha256sums ]]; then awk -v name="${file##*/}" '$2 != name' sha256sums >sha256sums.new; fi
    sha256sum "${file##*/}" >>sha256sums.new
    mv sha256sums.new sha256sums
  )
}

# Goes on with what is there; where that makes no whole file (a server that cannot go on, another file), from the start.
# A download that breaks off leaves what came.
_download() {
  local url=$1 part=$2 options=(--fail --location --silent --show-error --connect-timeout 20 --speed-time 60
    --speed-limit 100 --retry 3 --retry-delay 1)
  if [[ ! -s $part ]]; then
    curl "${options[@]}" --output "$part" "$url"
  elif ! { curl "${options[@]}" --continue-at - --output "$part" "$url" && _is_archive "$part"; } 2>/dev/null; then
    curl "${options[@]}" --output "$part.new" "$url" && mv "$part.new" "$part"
  fi
}

# Says in one line what is wrong with a download.
_is_served() {
  local part=$1 sum=$2 from=$3
  if head -c 512 "$part" | tr -d '\0' | grep -qiE '<(!doctype|html)'; then
    echo "${0##*/}: $from is an HTML page, not an archive" >&2
  elif ! _is_archive "$part"; then
    echo "${0##*/}: $from is no gzip or zip file, or cut short" >&2
  elif [[ $sum != - && $(sha256sum <"$part") != "$sum "* && $(md5sum <"$part") != "$sum "* ]]; then
    echo "${0##*/}: $from has another checksum than the one recorded" >&2
  else
    return 0
  fi
  return 1
}

# Whether a file is an archive to its end: a zip file by its directory, which stands there.
_is_archive() {
  case $(head -c 2 "$1" | tr -d '\0') in
    PK) command python3 -c 'import sys, zipfile; sys.exit(bool(zipfile.ZipFile(sys.argv[1]).testzip()))' "$1" 2>/dev/null ;;
    *) gzip -t "$1" 2>/dev/null ;;
  esac
}

# The pipeline of text: $RAW and $BPE hold {train,valid,test}.{$SOURCE,$TARGET}.

# to_bpe [CODES]: all of $RAW to $BPE, by codes learnt from both sides of the train split unless they are given.
to_bpe() {
  local split lang prepare=(python scripts/prepare_text.py)
  mkdir -p "$BPE"
  if [[ -n ${1:-} ]]; then
    cp "$1" "$OUT/codes"
  else
    TQDM_DISABLE=1 "${prepare[@]}" learn --input "$RAW/train.$SOURCE:$SOURCE" "$RAW/train.$TARGET:$TARGET" --merges "$MERGES" \
      --codes "$OUT/codes"
  fi
  for split in train valid test; do
    for lang in "$SOURCE" "$TARGET"; do
      "${prepare[@]}" apply --input "$RAW/$split.$lang" --lang "$lang" --codes "$OUT/codes" --output "$BPE/$split.$lang"
    done
  done
}

# binarise FOLDER FLAGS...: fairseq-preprocess of the texts that the flags name, with one dictionary, or $SEPARATE ones
binarise() {
  local folder=$1 joined=(--joined-dictionary)
  if [[ -n ${SEPARATE:-} ]]; then joined=(); fi
  local command=(fairseq-preprocess --user-dir "$PLUGIN" --source-lang "$SOURCE" --target-lang "$TARGET" "${joined[@]}"
    --destdir "$folder" --workers "${JOBS:-2}" "${@:2}")
  if [[ -n ${DRY_RUN:-} ]]; then
    run "${command[@]}"
    return
  fi
  rm -rf "$folder"
  "${command[@]}" >"$OUT/preprocess.log" 2>&1 || fail "fairseq-preprocess failed; see $OUT/preprocess.log"
  grep -oE '(\[.*(sents|Dictionary)).*' "$OUT/preprocess.log"
}

# distil FOLDER FLAGS...: what $OUT/models/teacher.pt says to the train split, into FOLDER
distil() {
  local folder=$1
  shift
  run bash scripts/distill.sh --data "$OUT/bin" --teacher "$OUT/models/teacher.pt" --source-lang "$SOURCE" \
    --target-lang "$TARGET" --source-text "$BPE/train.$SOURCE" --target-text "$BPE/train.$TARGET" --output "$folder" "$@"
}

DEVICE=(--cpu)
if [[ -n ${GPU:-} ]]; then DEVICE=(); fi

# The rows of the table: row ID WORDS-OF-TRAINING FLAGS..., with the flags that every system shares.
DECODE=(--user-dir "$PLUGIN" --task translation_nar "${DEVICE[@]}")
ROWS=()
row() {
  local id=$1 train=$2
  shift 2
  ROWS+=(--system "$id" "$(words --train "$train" "${DECODE[@]}" "$@")")
}

# What starts fairseq-train; several machines need more (examples/corpus.sh).
TRAINER=(fairseq-train)

# train NAME DATA FLAGS...: fairseq-train into $OUT/models/NAME, which a killed run goes on with. Progress on the screen,
# everything in $OUT/logs/NAME.log. Afterwards the weights alone are in $OUT/models/NAME.pt: those of the last checkpoint,
# or the average of the last $AVERAGE, or of the $BEST best by BLEU, with $TO_RELEASE in float16 and without this machine's
# paths; and the validation curve in $OUT/models/NAME.curve.json.
train() {
  local name=$1 data=$2 folder=$OUT/models/$1 log=$OUT/logs/$1.log
  shift 2
  local command=("${TRAINER[@]}" "$data" --user-dir "$PLUGIN" --save-dir "$folder" --no-progress-bar --log-format simple "$@")
  local weights=(--inputs "$folder/checkpoint_last.pt")
  if [[ -n ${AVERAGE:-} ]]; then weights=(--dir "$folder" --last "$AVERAGE"); fi
  if [[ -n ${BEST:-} ]]; then weights=(--dir "$folder" --best "$BEST" --or-fewer --metric bleu); fi
  if [[ -n ${TO_RELEASE:-} ]]; then weights+=(--half --forget-paths); fi
  if [[ -n ${DRY_RUN:-} ]]; then
    run "${command[@]}"
    run python scripts/average_checkpoints.py "${weights[@]}" --output "$OUT/models/$name.pt"
    return
  fi
  mkdir -p "$OUT/logs"
  if ((MACHINE > 0)); then
    PYTHONUNBUFFERED=1 "${command[@]}" >>"$OUT/logs/$name.$MACHINE.log" 2>&1 ||
      fail "training $name failed; see $OUT/logs/$name.$MACHINE.log"
    return
  fi
  _begin_training "$folder" "$log" "$data" "$@"
  PYTHONUNBUFFERED=1 "${command[@]}" 2>&1 | tee -a "$log" | _progress "$name" || fail "training $name failed; see $log"
  python scripts/average_checkpoints.py "${weights[@]}" --output "$OUT/models/$name.pt" >>"$log" 2>&1 ||
    fail "writing the weights of $name failed; see $log"
  python scripts/training_curve.py "$log" --output "$OUT/models/$name.curve.json"
}

# _begin_training FOLDER LOG DATA FLAGS...: another command, or data made anew, is another training and begins from nothing;
# what was there is put aside. With $IDENTITY that is what tells trainings apart, in place of the FLAGS.
_begin_training() {
  local folder=$1 log=$2 data=$3 asked last='' word
  shift 3
  asked="$(stat -c '%n %Y' "$data") ${IDENTITY:-${*@Q}}"
  for word in "$@"; do # a model trained anew begins what stands on it anew
    if [[ $last == --latent-model || $last == --finetune-from-model ]]; then asked+=" $(md5sum "$word")"; fi
    last=$word
  done
  if [[ -e $folder && ! (-e $folder/command && $(<"$folder/command") == "$asked") ]]; then
    echo "$folder is another training: put aside as $folder.before"
    rm -rf "$folder.before" "$log"
    mv "$folder" "$folder.before"
  fi
  mkdir -p "$folder"
  if command -v flock >/dev/null; then
    exec 9<"$folder" # a training that outlived its recipe holds it too
    flock -n 9 || fail "another training is at work on $folder"
  fi
  printf '%s' "$asked" >"$folder/command"
  _mend_last "$folder"
}

# A kill may cut the host's copy of the newest checkpoint to checkpoint_last.pt; the newest itself is always whole.
_mend_last() {
  local newest last=$1/checkpoint_last.pt
  newest=$(find "$1" -name 'checkpoint*[0-9].pt' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d ' ' -f 2-)
  if [[ -n $newest ]] && ! _is_whole "$last"; then cp "$newest" "$last"; fi
}

# A checkpoint is a zip file, and the last thing written of one is a record of 22 bytes that begins with PK 5 6.
_is_whole() { [[ -f $1 && $(tail -c 22 "$1" | head -c 4) == PK$'\005\006' ]]; }

# One short line for each report of fairseq-train, at once (some kinds of awk read ahead). Errors are shown as they are.
_progress() {
  local line
  while IFS= read -r line; do
    case $line in
      *"| train_inner |"*)
        echo "[$1] update $(_value num_updates "$line"), loss $(_value loss "$line"), $(_value wall "$line") s" ;;
      *"| valid |"*)
        echo "[$1] validated at update $(_value num_updates "$line"), loss $(_value loss "$line"), BLEU $(_value bleu "$line")" ;;
      *rror* | *Exception*) echo "[$1] $line" ;;
    esac
  done
}

_value() { if [[ $2 =~ [\ \|:]$1[\ =]([0-9.e-]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo -; fi; }
