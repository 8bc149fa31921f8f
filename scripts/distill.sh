#!/usr/bin/env bash
# Sequence-level distillation: a teacher translates the train split; valid and test are never touched.
#   distill.sh --data BIN_DIR --teacher CKPT --source-lang S --target-lang T --source-text FILE --target-text FILE
#              --output DIR [--beam 5] [--lenpen 1] [--nbest 1] [--max-tokens 8000] [--shards 2] [--jobs 2]
#              [--gpus 0] [--machine 0/1] [--task translation_nar] [--teacher-bleu "36.9, signature"]
#              [-- further flags of fairseq-generate]
# The texts are the BPE files that were binarised. Writes train.S, train.T (BPE, one line for each line of the text),
# manifest.json, and with --nbest nbest.gz. Call it again after an interruption: finished shards are not done again.
# Shards that run at once are spread over --gpus. --machine R/N does every N-th shard from R on; all N machines share
# --output, and the one that ends last puts the shards together.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$root/.venv/bin:$PATH" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONUNBUFFERED=1

say() { echo "distill.sh: $*"; }
fail() {
  say "$*" >&2
  exit 2
}

command=$(printf '%q ' "$0" "$@")
declare -A option=([beam]=5 [lenpen]=1 [nbest]=1 [max-tokens]=8000 [shards]=2 [jobs]=2 [gpus]=0 [machine]=0/1 [task]=translation_nar
  [teacher-bleu]="" [data]="" [teacher]="" [source-lang]="" [target-lang]="" [source-text]="" [target-text]=""
  [output]="")
while (($#)) && [[ $1 != -- ]]; do
  name=${1#--}
  [[ $1 != --gen-subset* ]] || fail "only the train split is distilled: --gen-subset is not an option"
  [[ $1 == --* && -v option[$name] ]] || fail "unknown option $1"
  (($# > 1)) || fail "$1 wants a value"
  option[$name]=$2
  shift 2
done
further=("${@:2}")
[[ " ${further[*]}" != *" --gen-subset"* ]] || fail "only the train split is distilled: --gen-subset is not an option"
for name in data teacher source-lang target-lang source-text target-text output; do
  [[ ${option[$name]} ]] || fail "--$name is missing"
done
for name in beam nbest max-tokens shards jobs; do
  [[ ${option[$name]} =~ ^[1-9][0-9]*$ ]] || fail "--$name wants a whole number above 0, not ${option[$name]}"
done
[[ ${option[gpus]} =~ ^[0-9]+$ ]] || fail "--gpus wants a whole number, not ${option[gpus]}"
machine=${option[machine]%/*} machines=${option[machine]#*/}
if [[ ! ${option[machine]} =~ ^[0-9]+/[1-9][0-9]*$ ]] || ((machine >= machines)); then
  fail "--machine wants R/N with R from 0 to N - 1, not ${option[machine]}"
fi
((option[nbest] <= option[beam])) || fail "--nbest ${option[nbest]} is more than --beam ${option[beam]}"

# A text may be given with or without its language ending.
text_file() {
  local candidate
  for candidate in "$1" "$1.$2"; do
    [[ ! -f $candidate ]] || { echo "$candidate" && return; }
  done
  fail "text not found: $1"
}
source_text=$(text_file "${option[source-text]}" "${option[source-lang]}")
target_text=$(text_file "${option[target-text]}" "${option[target-lang]}")
IFS=: read -ra teachers <<<"${option[teacher]}"
for teacher in "${teachers[@]}"; do
  [[ -f $teacher ]] || fail "teacher not found: $teacher"
done
[[ -d ${option[data]} ]] || fail "data not found: ${option[data]}"

collect=(python "$root/scripts/collect_distilled.py")
texts=(--pair "${option[source-lang]}" "${option[target-lang]}"
  --source-text "$source_text" --target-text "$target_text")
"${collect[@]}" check --data "${option[data]}" "${texts[@]}" 2> >(grep -v '^INFO' >&2)

# Shards made by another teacher, of other data, or searched otherwise, are other shards.
key=$({
  sha256sum "${teachers[@]}" "${option[data]}"/dict.* "${option[data]}"/train.* | cut -d ' ' -f 1
  echo "${option[beam]} ${option[lenpen]} ${option[nbest]} ${option[shards]} ${option[task]} ${further[*]}"
} | sha256sum)
parts=${option[output]}/parts-${key:0:12}
mkdir -p "$parts"
if command -v flock >/dev/null; then
  exec 9>>"$parts/.lock-$machine"
  flock -n 9 || fail "another call is at work on $parts"
fi

# fairseq-generate ends with a line of its own, and every source it printed has an answer.
is_whole() {
  [[ -f $1 && $(tail -n 1 "$1") == "Generate train"* ]] &&
    (($(grep -c '^S-' "$1") == $(grep '^H-' "$1" | cut -f 1 | uniq | wc -l)))
}

# fairseq-generate divides by the time it took, and a shard without a batch takes none: there was nothing to translate.
accept_empty() {
  if [[ ! -s $1.part ]] && tail -n 4 "$1.log" | grep -q 'num_sentences / gen_timer.sum'; then
    echo "Generate train: nothing" >"$1.part"
  fi
}

IFS=, read -ra seen <<<"${CUDA_VISIBLE_DEVICES:-}" # the GPUs that are ours
# The shard of a sentence follows from fairseq's own splitting of the batches; ids stay those of the whole set.
start_shard() {
  if ((option[gpus])); then
    local nth=$(($2 % option[gpus]))
    export CUDA_VISIBLE_DEVICES=${seen[nth]:-$nth}
  fi
  fairseq-generate "${option[data]}" --user-dir "$root/nar_plugin" --task "${option[task]}" \
    --source-lang "${option[source-lang]}" --target-lang "${option[target-lang]}" --path "${option[teacher]}" \
    --beam "${option[beam]}" --lenpen "${option[lenpen]}" --nbest "${option[nbest]}" \
    --max-tokens "${option[max-tokens]}" --skip-invalid-size-inputs-valid-test --required-batch-size-multiple 1 \
    --distributed-world-size "${option[shards]}" --distributed-rank "$1" --no-progress-bar "${further[@]}" \
    --gen-subset train 2>"$parts/$1.log" | grep --line-buffered -E '^([SH]-|Generate train)' >"$parts/$1.part" &
}

lines=$(wc -l <"$source_text")
report() { say "$(cat "$parts"/*.part "$parts"/*.txt 2>/dev/null | grep -c '^S-') of $lines lines"; }

todo=()
for ((i = machine; i < option[shards]; i += machines)); do
  if is_whole "$parts/$i.txt"; then say "shard $i: done before"; else todo+=("$i"); fi
done
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
for ((first = 0; first < ${#todo[@]}; first += option[jobs])); do
  now=("${todo[@]:first:option[jobs]}")
  say "shards ${now[*]} of ${option[shards]} begin"
  for i in "${!now[@]}"; do start_shard "${now[i]}" "$i"; done
  for ((seconds = 1; $(jobs -rp | wc -l); seconds++)); do
    sleep 1
    ((seconds % 20)) || report
  done
  for i in "${now[@]}"; do
    accept_empty "$parts/$i"
    is_whole "$parts/$i.part" || fail "shard $i failed: $(tail -n 1 "$parts/$i.log") (all of it: $parts/$i.log)"
    mv "$parts/$i.part" "$parts/$i.txt"
  done
  report
done

part_files=()
for ((i = 0; i < option[shards]; i++)); do
  if ! is_whole "$parts/$i.txt"; then
    say "the shards of this machine are done, shard $i is not: another machine's, or call again"
    exit 0
  fi
  part_files+=("$parts/$i.txt")
done
commit=$(git -C "$root" describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
bleu=()
[[ -z ${option[teacher-bleu]} ]] || bleu=(--teacher-bleu "${option[teacher-bleu]}")
"${collect[@]}" collect "${texts[@]}" --parts "${part_files[@]}" --output "${option[output]}" \
  --beam "${option[beam]}" --lenpen "${option[lenpen]}" --nbest "${option[nbest]}" --teacher "${option[teacher]}" \
  "${bleu[@]}" --made-by "$command" --commit "$commit"
