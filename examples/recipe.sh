#!/usr/bin/env bash
# The steps of every recipe. A corpus's run.sh sets what is its own, sources this file, and ends with `main "$@"`. What it
# sets, what a file in methods/ sets, and how either is added: examples/README.md.
HERE=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
CORPUS=${HERE##*/} OUT=${OUT:-$HERE/out} JOBS=${JOBS:-$(nproc)} OFFLINE=${OFFLINE:+$(realpath "$OFFLINE")}
# The GPUs that this machine shows, or those of CUDA_VISIBLE_DEVICES; of them the first $GPUS.
mapfile -t SEEN < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)
if [[ -v CUDA_VISIBLE_DEVICES ]]; then IFS=, read -ra SEEN <<<"$CUDA_VISIBLE_DEVICES"; fi
GPUS=${GPUS:-${#SEEN[@]}}
CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${SEEN[*]:0:GPUS}")
export CUDA_VISIBLE_DEVICES
source "${BASH_SOURCE[0]%/*}/lib.sh"
RAW=$OUT/raw TOKENIZED=$OUT/tokenized KEPT=$OUT/kept BPE=$OUT/bpe MODELS=$OUT/models DOWNLOAD=$OUT/download PAIR=$SOURCE-$TARGET
LANGS=("$SOURCE" "$TARGET") CHECKSUMS=${CHECKSUMS:-$HERE/checksums} RESULTS=${RESULTS:-$OUT} SEPARATE=${SEPARATE:-}
SPLITS=(--validpref "$BPE/valid" --testpref "$BPE/test") DICTIONARY=() CODES_FROM=() KNOWN_WORDS=(--srcdict "$OUT/bin/dict.$SOURCE.txt")
if [[ -n $SEPARATE ]]; then KNOWN_WORDS+=(--tgtdict "$OUT/bin/dict.$TARGET.txt"); fi
[[ -n ${DRY_RUN:-} ]] || ((GPUS <= ${#SEEN[@]})) || fail "GPUS=$GPUS, but ${#SEEN[@]} are to be seen"
ASKED_DATA=${DATA:-} ASKED_TOKENS=${TOKENS:-} ASKED_UPDATES=${UPDATES:-} ASKED_BEST=${BEST:-}
[[ ${WARM_START:=1} == [01] ]] || fail "WARM_START is 0 or 1, not $WARM_START"
for DATA in ${DATA:-}; do [[ $DATA == distilled || $DATA == raw ]] || fail "DATA is distilled or raw, not $DATA"; done
read -ra METHODS <<<"${METHODS:-all}"
AT_ONCE=${AT_ONCE:-$((GPUS > 0 ? 1 : 2))} # trainings

# What of a command depends on the devices: $DEVICE of any program, $FLOAT of trainings, $HALF of distillation (fairseq-generate
# knows no bfloat16); $BFLOAT16 where a CPU multiplies it itself.
BFLOAT16=$(grep -woEm1 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo 2>/dev/null || true)
devices() {
  DEVICE=(--cpu) FLOAT=() HALF=()
  case ${PRECISION:=fp16} in
    fp16 | bf16) if ((GPUS > 0)); then FLOAT=("--$PRECISION") HALF=(--fp16); fi ;;
    fp32) ;;
    *) fail "PRECISION is fp16, bf16 or fp32, not $PRECISION" ;;
  esac
  if ((GPUS > 0)); then DEVICE=(); fi
  DECODE=(--user-dir "$PLUGIN" --task translation_nar "${DEVICE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET")
}
devices

codes() { if [[ -n $SEPARATE ]]; then echo "$OUT/codes.$1"; else echo "$OUT/codes"; fi; }

# How hypotheses become plain text, and what chooses checkpoints: another for words that are no text.
METRIC=bleu DETOKENIZE=(--tokenizer moses --bpe subword_nmt --bpe-codes "$(codes "$SOURCE")")

# take ARCHIVE: one of $ARCHIVES, from the folder $OFFLINE, or else from $MIRRORS or its own addresses
take() {
  local words urls
  read -ra words <<<"$1"
  read -ra urls <<<"${MIRRORS:-}"
  urls=("${urls[@]/%//${words[0]}}" "${words[@]:1}")
  if [[ -n $OFFLINE ]]; then urls=("file://$OFFLINE/${words[0]}"); fi
  run nar fetch "$DOWNLOAD/${words[0]}" --sums "$CHECKSUMS" "${urls[@]}"
}
extract() {
  local text words from=()
  for text in "${TEXTS[@]}"; do
    read -ra words <<<"$text"
    if [[ ${words[0]} == "$1" ]]; then from+=(--from "$DOWNLOAD/${words[1]}" "${words[2]}" "$DOWNLOAD/${words[3]}" "${words[4]}"); fi
  done
  run nar extract "${from[@]}" ${TITLES:+--titles} --output "$RAW/$1".{"$SOURCE","$TARGET"}
}
tokenize() {
  local lang
  for lang in "${LANGS[@]}"; do
    run nar prepare tokenize --input "${TEXTS_OF[@]/%/.$lang}" --lang "$lang" --jobs "$JOBS" "${TOKENIZE[@]}" --output-dir "$TOKENIZED"
  done
}
keep() {
  local held=(--hold-out "${HOLD_OUT:-}" "$TOKENIZED/valid".{"$SOURCE","$TARGET"})
  run nar filter --input "$TOKENIZED/train".{"$SOURCE","$TARGET"} --output "$KEPT/train".{"$SOURCE","$TARGET"} \
    --longest "$LONGEST" --ratio "$RATIO" ${HOLD_OUT:+"${held[@]}"}
}
learn_bpe() {
  local lang learn=(nar prepare learn --tokenized --merges "$MERGES")
  if [[ -z $SEPARATE ]]; then
    run "${learn[@]}" --input "$KEPT/train.$SOURCE:$SOURCE" "$KEPT/train.$TARGET:$TARGET" --codes "$OUT/codes"
  else
    for lang in "${LANGS[@]}"; do run "${learn[@]}" --input "$KEPT/train.$lang:$lang" --codes "$OUT/codes.$lang"; done
  fi
}
apply_bpe() {
  local lang
  for lang in "${LANGS[@]}"; do
    run nar prepare apply --tokenized --input "$KEPT/train.$lang" "$TOKENIZED/valid.$lang" "$TOKENIZED/test.$lang" --lang "$lang" \
      --jobs "$JOBS" --codes "$(codes "$lang")" --output-dir "$BPE"
  done
}
# binarise FOLDER FLAGS...: fairseq-preprocess of the texts that the flags name, with one dictionary unless $SEPARATE
binarise() {
  local command=(fairseq-preprocess --user-dir "$PLUGIN" --source-lang "$SOURCE" --target-lang "$TARGET" --destdir "$1"
    --workers "$JOBS" "${@:2}")
  if [[ -z $SEPARATE ]]; then command+=(--joined-dictionary); fi
  run rm -rf "$1"
  if [[ -n ${DRY_RUN:-} ]]; then run "${command[@]}" && return; fi
  mkdir -p "${1%/*}"
  "${command[@]}" >"$1.log" 2>&1 || fail "fairseq-preprocess failed; see $1.log"
  echo "of each text: sentences, subwords with the end symbols, and the share that the dictionary lacks"
  grep -oE '(\[.*(sents|Dictionary)).*' "$1.log"
}

do_download() {
  local archive
  for archive in "${ARCHIVES[@]}"; do step "download-${archive%% *}" to "$DOWNLOAD/${archive%% *}" -- take "$archive"; done
}
do_prepare() {
  local split archives=("${ARCHIVES[@]%% *}") tokenized=() kept=() bpe=("$BPE"/{train,valid,test}.{"$SOURCE","$TARGET"}) TEXTS_OF=()
  for split in $(printf '%s\n' "${TEXTS[@]%% *}" | grep -v "^${HOLD_OUT:+valid}\$" | sort -u); do
    TEXTS_OF+=("$RAW/$split")
    tokenized+=("$TOKENIZED/$split".{"$SOURCE","$TARGET"})
    if ((${#archives[@]} == 0)); then continue; fi
    step "extract-$split" from "${archives[@]/#/$DOWNLOAD/}" to "$RAW/$split".{"$SOURCE","$TARGET"} -- extract "$split"
  done
  step tokenize from "${tokenized[@]/#$TOKENIZED/$RAW}" to "${tokenized[@]}" -- tokenize
  if [[ -z ${LONGEST:-} ]]; then KEPT=$TOKENIZED; fi
  if [[ -n ${HOLD_OUT:-} ]]; then kept=("$TOKENIZED/valid".{"$SOURCE","$TARGET"}); fi
  kept+=("$KEPT/train".{"$SOURCE","$TARGET"})
  if [[ -n ${LONGEST:-} ]]; then step filter from "$TOKENIZED/train".{"$SOURCE","$TARGET"} to "${kept[@]}" -- keep; fi
  local codes=("$(codes "$SOURCE")" "$(codes "$TARGET")")
  step learn-bpe from "$KEPT/train".{"$SOURCE","$TARGET"} "${CODES_FROM[@]}" to "${codes[@]}" -- learn_bpe
  step apply-bpe from "${kept[@]}" "${tokenized[@]}" "${codes[@]}" to "${bpe[@]}" -- apply_bpe
  step binarise from "${bpe[@]}" to "$OUT/bin/dict.$TARGET.txt" "$OUT/bin/train.$PAIR.$TARGET.bin" -- \
    binarise "$OUT/bin" --trainpref "$BPE/train" "${SPLITS[@]}" "${DICTIONARY[@]}"
}

# use METHOD [VARIANT [DATA [SEED]]]: these settings, and the model's $NAME
use() {
  METHOD=$1 VARIANT=${2:-} DATA=${3:-distilled} SEEDED=${4:-}
  ID='' ARCH=$1 CRITERION='' AFTER='' BASELINE=beam5 PICTURED='' COMPILES=1 COUNTED=''
  DATASETS=(distilled) VARIANTS=('') SEEDS=() FLAGS=() SHARED=("${OWN[@]}") FINETUNE=() WEIGHTS=("${AVERAGE[@]}") RELEASED=("${STORED[@]}")
  lasts "${LASTS[@]}"
  WAYS=() EXPLAINED=() TIMED=() SWEPT=() BASE=() OVERFIT=() OVERFIT_WAY=() SHOWN=() FORCED=(--gold-target-len) NAME=$METHOD WARM=()
  ONE_PASS=() FURTHER=() EMS=() EM_ID=''
  if ((WARM_START)); then WARM=(--warm-start "$MODELS/teacher.pt"); fi
  source "${HERE%/*}/methods/$METHOD.sh"
  if [[ -n $BEST ]]; then WEIGHTS=(--best "$BEST" --or-fewer --metric "$METRIC"); fi
  if [[ $METHOD != teacher ]]; then NAME=$METHOD${VARIANT:+_$VARIANT}-$DATA${SEEDED:+-seed$SEEDED}; fi
  if [[ $METHOD != teacher && -n $ASKED_DATA ]]; then read -ra DATASETS <<<"$ASKED_DATA"; fi
}
lasts() {
  TOKENS=${ASKED_TOKENS:-$1} UPDATES=${ASKED_UPDATES:-${2:-}} BEST=${ASKED_BEST:-${3:-}} MORE_UPDATES=${FINETUNE_UPDATES:-${4:-}}
}
way() { WAYS+=("$*"); }
explain() { EXPLAINED+=("$*"); }
timed() { TIMED+=("$*"); }
swept() { SWEPT+=("$*"); }
em() { EMS+=("$*"); }

# each_model METHOD COMMAND...: COMMAND with the settings of every model of a method
each_model() {
  local data variant seed datasets variants seeds
  use "$1"
  datasets=("${DATASETS[@]}") variants=("${VARIANTS[@]}") seeds=('' "${SEEDS[@]}")
  for data in "${datasets[@]}"; do
    for variant in "${variants[@]}"; do
      for seed in "${seeds[@]}"; do
        use "$1" "$variant" "$data" "$seed"
        "${@:2}"
      done
    done
  done
}
# where VARIABLE COMMAND...: COMMAND METHOD for those methods that set VARIABLE
where() {
  local method
  for method in "${METHODS[@]}"; do
    use "$method"
    local -n asked=$1
    if [[ -n ${asked[*]} ]]; then "${@:2}" "$method"; fi
  done
}
binaries() { if [[ $DATA == distilled && $METHOD != teacher ]]; then echo "$OUT/bin-distilled"; else echo "$OUT/bin"; fi; }

# count_words TEXT BINARIES FOLDER: how many target words each source word has, of a training text and of the valid set
count_words() {
  run nar align --input "$1".{"$SOURCE","$TARGET"} --dict "$2"/dict.{"$SOURCE","$TARGET"}.txt --word-counts "$3" \
    --held-out valid "$BPE/valid".{"$SOURCE","$TARGET"}
}
# add_counts: those of the text that the model in use is trained on, if it asks for them
add_counts() {
  local text=$BPE/train folder=$OUT/counts-$DATA
  if [[ -z $COUNTED || -n $(released "$NAME") ]] || ((MACHINE > 0)); then return; fi
  if [[ $DATA == distilled ]]; then text=$OUT/distilled/train; fi
  step "count-$DATA" from "$text".{"$SOURCE","$TARGET"} "$(binaries)/train.$PAIR.$TARGET.bin" to "$folder"/{train,valid} -- \
    count_words "$text" "$(binaries)" "$folder"
}

# What starts a training on several machines: srun in a job of SLURM, else torchrun, with the first machine's address in MASTER
reach_machines() {
  ((GPUS > 0)) || fail "MACHINES=$MACHINES wants GPUs: fairseq does not start on the CPUs of several machines"
  if [[ -n ${SLURM_JOB_ID:-} && -z ${MASTER:-} ]]; then
    TRAINER=(srun --nodes "$MACHINES" --ntasks-per-node 1 fairseq-train)
    SPREAD+=(--distributed-port "${PORT:-29500}")
  else
    [[ ${MASTER:-} == *:* ]] || fail "MACHINES=$MACHINES wants MASTER=HOST:PORT, or a job of SLURM"
    TRAINER=(torchrun --nnodes "$MACHINES" --node-rank "$MACHINE" --nproc-per-node "$GPUS" --master-addr "${MASTER%:*}"
      --master-port "${MASTER#*:}" --no-python fairseq-train)
  fi
}

# spread: in $SPREAD, flags for about $TOKENS tokens an update: no more than $MAX_TOKENS at once of each process of each of
# $WORKERS machines, as often as it takes. No fewer than 1,024, lest long sentences do not fit: then by one machine, and by
# fewer processes.
spread() {
  local here=$((GPUS > 0 ? GPUS : 1)) most=${MAX_TOKENS:-8192} processes at_once times
  [[ $most =~ ^[1-9][0-9]*$ && $TOKENS =~ ^[1-9][0-9]*$ ]] || fail "MAX_TOKENS and TOKENS want whole numbers above 0"
  WORKERS=$MACHINES
  if ((TOKENS < 1024 * here * MACHINES)); then WORKERS=1; fi
  processes=$((here * WORKERS))
  if ((TOKENS < 1024 * processes)); then processes=$((TOKENS < 1024 ? 1 : TOKENS / 1024)); fi
  times=$(((TOKENS + processes * most - 1) / (processes * most)))
  at_once=$((TOKENS / (processes * times)))
  SPREAD=(--distributed-world-size "$processes" --max-tokens "$at_once" --update-freq "$times")
  say "each update: $((processes * at_once * times)) target tokens ($processes processes x $at_once x $times accumulated)"
}

# train_on DATA NAME FLAGS...: a training with the settings in use, and flags
train_on() {
  local SPREAD WORKERS TRAINER=(fairseq-train) preset=()
  spread
  if ((WORKERS < MACHINES && MACHINE > 0)); then echo "so few tokens are the first machine's alone" && return; fi
  if ((WORKERS > 1)); then reach_machines; fi
  if [[ -n $ARCH ]]; then preset=(--arch "${ARCH}_$SIZE" --criterion "$CRITERION"); fi
  train "$2" "$1" --task translation_nar "${DEVICE[@]}" "${FLOAT[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" \
    --seed "${SEEDED:-${SEED:-1}}" --optimizer adam --log-interval 100 "${COMMON[@]}" "${SHARED[@]}" "${SPREAD[@]}" \
    ${BEST:+--keep-best-checkpoints "$BEST"} "${preset[@]}" "${@:3}"
}
# fit METHOD VARIANT DATA SEED: its model, in two trainings where there is $FINETUNE
fit() {
  use "$@"
  local flags=("${FLAGS[@]}" ${UPDATES:+--max-update "$UPDATES"})
  if ((${#FINETUNE[@]})); then
    train_on "$(binaries)" "$NAME-first" "${flags[@]}"
    flags=("${FINETUNE[@]}" ${MORE_UPDATES:+--max-update "$MORE_UPDATES"} --finetune-from-model "$MODELS/$NAME-first.pt")
    if [[ ${WEIGHTS[0]:-} == --last ]]; then WEIGHTS=(); fi # of one epoch there is one checkpoint
  fi
  train_on "$(binaries)" "$NAME" "${flags[@]}"
}
# A model that comes with its recipe is not trained: released NAME prints its file, take_released NAME puts it into $MODELS.
released() { :; }
# add_training {first | after}: to $TRAININGS, if the model stands on no other, or if it does
add_training() {
  local word file from=() made=(fit "$METHOD" "$VARIANT" "$DATA" "$SEEDED")
  for word in "${FLAGS[@]}"; do if [[ $word == "$MODELS"/*.pt ]]; then from+=("$word"); fi; done
  file=$(released "$NAME")
  if [[ -n $file ]]; then made=(take_released "$NAME"); elif [[ -n $COUNTED ]]; then from+=("$OUT/counts-$DATA"/{train,valid}); fi
  if [[ ${AFTER:+after} == "$1" || -z $AFTER && $1 == first ]]; then
    TRAININGS+=("$(words step "train-$NAME" from "$(binaries)/train.$PAIR.$TARGET.bin" "${from[@]}" ${file:+"$file"} \
      to "$MODELS/$NAME.pt" -- "${made[@]}")")
  fi
}
# students METHOD...: the trainings of all of them
students() {
  local method wave TRAININGS
  for method; do each_model "$method" add_counts; done
  for wave in first after; do
    TRAININGS=()
    for method; do each_model "$method" add_training "$wave"; done
    together "${TRAININGS[@]}"
  done
}
do_teacher() { students teacher; }
do_students() { students "${METHODS[@]}"; }

# answer TEACHER FOLDER FLAGS...: what a teacher says to the train split. The shards of all machines; the one that ends last
# puts them together.
answer() {
  local teacher=$1 folder=$2 shards=()
  if [[ -s $OUT/teacher.bleu && $teacher == "$MODELS/teacher.pt" ]]; then shards=(--teacher-bleu "valid: $(<"$OUT/teacher.bleu")"); fi
  if ((GPUS > 0)); then shards+=(--gpus "$GPUS" --jobs "$GPUS" --shards "$((4 * GPUS * MACHINES))"); fi
  ((MACHINE > 0)) || run rm -f "$folder/manifest.json"
  run nar distill --data "$OUT/bin" --teacher "$teacher" --source-lang "$SOURCE" --target-lang "$TARGET" \
    --source-text "$BPE/train.$SOURCE" --target-text "$BPE/train.$TARGET" --output "$folder" "${SEARCH[@]}" "${DISTIL[@]}" "${@:3}" \
    "${shards[@]}" --machine "$MACHINE/$MACHINES" -- "${DEVICE[@]}" "${HALF[@]}"
  [[ -n ${DRY_RUN:-} || -e $folder/manifest.json ]] || ((MACHINE > 0)) ||
    fail "shards of other machines are missing: call this again when they are done"
}
distil() { answer "$MODELS/teacher.pt" "$@"; }
do_distil() {
  local made=("$OUT"/distilled/{train."$SOURCE",train."$TARGET",manifest.json})
  step distil from "$MODELS/teacher.pt" "$BPE/train".{"$SOURCE","$TARGET"} to "${made[@]}" -- distil "$OUT/distilled"
  if ((MACHINE > 0)); then return; fi
  step binarise-distilled from "${made[@]}" to "$OUT/bin-distilled/train.$PAIR.$TARGET.bin" -- \
    binarise "$OUT/bin-distilled" --trainpref "$OUT/distilled/train" "${SPLITS[@]}" "${KNOWN_WORDS[@]}"
}

# id_of NAME: of a way to decode, as tables have it;   model_of WAY: --path, with the teacher where it judges, and the teacher
# alone where the model drafts for it, whose checkpoint a way calls {model}
id_of() { echo "$ID$(if [[ $DATA == raw && $METHOD != teacher ]]; then echo -raw; fi)-$1${SEEDED:+-seed$SEEDED}"; }
model_of() {
  case $1 in
    *external-reranker*) echo "$MODELS/$NAME.pt:$MODELS/teacher.pt" ;;
    *--drafter*) echo "$MODELS/teacher.pt" ;;
    *) echo "$MODELS/$NAME.pt" ;;
  esac
}

# generate FILE SPLIT FLAGS...: the hypotheses of a split, detokenised, as many as sources
generate() {
  local file=$1 log=$OUT/logs/${1##*/}.log
  local command=(fairseq-generate "$OUT/bin" "${DECODE[@]}" --gen-subset "$2" --batch-size "${DECODE_BATCH:-50}"
    "${DETOKENIZE[@]}" "${@:3}")
  run mkdir -p "${file%/*}" "${log%/*}"
  if [[ -n ${DRY_RUN:-} ]]; then echo "$(words "${command[@]}") | grep ^D- | sort -V | cut -f 3- > $(words "$file")" && return; fi
  "${command[@]}" 2>"$log" | grep '^D-' | sort -V | cut -f 3- >"$file.part" || fail "fairseq-generate failed; see $log"
  (($(wc -l <"$file.part") == $(wc -l <"$RAW/$2.$TARGET"))) || fail "hypotheses are missing; see $file.part"
  mv "$file.part" "$file"
}
# Every way of the model in use, or those of them in $IDS; a model that was not trained is passed over.
decode_model() {
  local way words id
  for way in "${WAYS[@]}"; do
    read -ra words <<<"${way/\{model\}/$MODELS/$NAME.pt}"
    id=$(id_of "${words[0]}")
    KNOWN+=" $id "
    if [[ -n ${IDS:-} && " $IDS " != *" $id "* ]]; then continue; fi
    if [[ -z ${DRY_RUN:-} && ! -e $MODELS/$NAME.pt ]]; then echo "== decode-$id: $NAME is not trained, left out" && continue; fi
    step "decode-$id" from "$MODELS/$NAME.pt" "$OUT/bin/dict.$TARGET.txt" "$RAW/test.$TARGET" to "$OUT/hypotheses/$id.txt" -- \
      generate "$OUT/hypotheses/$id.txt" test --path "$(model_of "$way")" "${words[@]:1}"
  done
}
do_decode() {
  local method id KNOWN='' LOOPS=() STUDENTS_OF_EM=()
  for method in teacher "${METHODS[@]}"; do each_model "$method" decode_model; done
  last_loops && each_loop decode_model "${LOOPS[@]}"
  for id in ${IDS:-}; do [[ $KNOWN == *" $id "* ]] || fail "nothing decodes as $id; there are:$KNOWN"; done
}
do_score() {
  run nar score "$HERE/expected.json" --reference "$RAW/test.$TARGET" --hypotheses "$OUT/hypotheses" "${SCORE[@]}" \
    --output "$OUT/scores.json"
}

# add_rows WAY...: to $ROWS, those ways of the model in use, by each of $ENGINES
add_rows() {
  local way words engine
  for way; do
    read -ra words <<<"${way/\{model\}/$MODELS/$NAME.pt}"
    for engine in "${ENGINES[@]:-}"; do
      if [[ $engine == compiled && $way == *--drafter* ]]; then continue; fi
      ROWS+=(--system "$(id_of "${words[0]}")${engine:+-$engine}" "$(words --train "$DATA" --curve "$MODELS/$NAME.curve.json" \
        --baseline "$BASELINE" --path "$(model_of "$way")" "${DECODE[@]}" ${engine:+--engine "$engine"} "${words[@]:1}")")
    done
  done
}
# Of those on distilled data by every engine of a CPU, unless they take gradients
add_plain() {
  local ENGINES=('')
  if ((GPUS == 0)) && [[ $DATA == distilled && $VARIANT != energy ]]; then ENGINES+=(int8 ${COMPILES:+compiled} ${BFLOAT16:+bf16}); fi
  if [[ -z $SEEDED ]]; then add_rows "${WAYS[@]}"; fi
}
add_model() { if [[ -z $SEEDED || $1 == all ]]; then NEEDED+=("$MODELS/$NAME.pt"); fi; }

# clock METHOD TABLE COMMAND: rows with scores, which COMMAND adds for each model of a method, in results/TABLE.json
clock() {
  local ROWS=()
  each_model "$1" "$3"
  clock_rows "$2"
}
# clock_rows TABLE: likewise those in $ROWS, beside the teacher's of the same run
clock_rows() {
  run rm -f "$RESULTS/results/$1.json"
  run nar benchmark "$OUT/bin" --reference "$RAW/test.$TARGET" --hypotheses "$RESULTS/hypotheses" --source-lang "$SOURCE" \
    --target-lang "$TARGET" "${CLOCK[@]}" ${ALLOW_NOISE:+--allow-noise} --output "$RESULTS/results/$1.json" "${ROWS[@]}" --teacher \
    "$(words --train raw --curve "$MODELS/teacher.curve.json" --path "$MODELS/teacher.pt" "${DECODE[@]}" "${SEARCH[@]:2}")"
}
do_measure() {
  local method NEEDED TABLES=()
  for method in "${METHODS[@]}"; do
    NEEDED=("$MODELS/teacher.pt") && each_model "$method" add_model plain
    TABLES+=("$RESULTS/results/$method.json")
    step "measure-$method" from "${NEEDED[@]}" to "${TABLES[-1]}" -- clock "$method" "$method" add_plain
  done
  if declare -F more_tables >/dev/null; then more_tables; fi
  step assemble from "${TABLES[@]}" to "$RESULTS/results.json" -- nar assemble "${TABLES[@]}" --output "$RESULTS/results.json"
}
# What passes are worth, by the ways of $SWEPT: NAME-SETTING, a run for each NAME. Passes are means, so all sentences are
# counted, but each is timed once.
do_unmask() {
  local CLOCK=("${CLOCK[@]}" --sentences "${SENTENCES:-1000}" --repeats 1)
  where SWEPT sweep
}
sweep() {
  local swept tables=() table=$RESULTS/results/unmask.json figure=$RESULTS/figures/unmask
  for swept in $(printf '%s\n' "${SWEPT[@]%%-*}" | uniq); do
    tables+=("$RESULTS/results/unmask.$swept.json")
    step "unmask-$swept" from "$MODELS/teacher.pt" "$MODELS/$NAME.pt" to "${tables[-1]}" -- clock "$1" "unmask.$swept" add_swept
  done
  step unmask from "${tables[@]}" to "$table" -- nar assemble "${tables[@]}" --no-check-hypotheses --output "$table"
  step figure-unmask from "$table" to "$figure".{png,svg} -- nar report "$table" --figure steps --output "$figure"
}
add_swept() {
  local way
  if [[ $DATA$SEEDED != distilled ]]; then return; fi
  for way in "${SWEPT[@]}"; do if [[ $way == "$swept-"* ]]; then add_rows "$way"; fi; done
}
do_report() { run nar report "$RESULTS/results.json"; }

source "$ROOT/examples/em.sh"

all_methods() { (cd "${HERE%/*}/methods" && printf '%s ' *.sh | sed 's/\.sh//g; s/teacher //'); }
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$HERE/run.sh"
  printf 'steps: %s\nmethods, each a step too: %s\n' "$(declare -F | sed -n 's/^declare -f do_//p' | tr '\n' ' ')" "$(all_methods)"
  echo "if no step is named: ${STEPS[*]}"
}
# main [STEP...]: these steps, one after the other
main() {
  local step
  if [[ ${METHODS[*]} == all ]]; then read -ra METHODS <<<"$(all_methods)"; fi
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage && return; fi
  if (($# == 0)); then set -- "${STEPS[@]}"; fi
  for step in "$@" "${METHODS[@]}"; do
    declare -F "do_$step" >/dev/null || [[ " $(all_methods) " == *" $step "* ]] || fail "there is no step or method $step; --help names them"
  done
  if [[ -n ${DRY_RUN:-} ]]; then
    echo "cd $(words "$ROOT") && export PATH=\"\$PWD/.venv/bin:\$PATH\" OMP_NUM_THREADS=1"
  else
    bash scripts/install.sh
  fi
  for step; do if declare -F "do_$step" >/dev/null; then "do_$step"; else students "$step"; fi; done
}

# What recipes on large corpora have; others say their own after this file. BLEU of the valid set is of detokenised text and
# chooses checkpoints.
VALIDATED=(--eval-bleu --eval-bleu-remove-bpe --eval-bleu-detok moses --best-checkpoint-metric bleu
  --maximize-best-checkpoint-metric)
COMMON=("${VALIDATED[@]}" --no-epoch-checkpoints --save-interval-updates 2000 --validate-interval-updates 2000
  --keep-interval-updates 1)
OWN=(--share-all-embeddings) AVERAGE=() STORED=() DISTIL=() LASTS=(25000) SCORE=("${SCORE[@]}") CLOCK=() STEPS=(download prepare teacher distil students decode score)
if [[ -n $SEPARATE ]]; then OWN=(); fi
