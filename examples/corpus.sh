#!/usr/bin/env bash
# The seven steps of the recipes for WMT and IWSLT; examples/README.md says how they are used. The recipe.sh of a folder sets
# what is its own and sources this file:
#   HERE                  that folder; outputs go to $OUT (HERE/out)
#   SOURCE TARGET SIZE    languages; the end of its presets' names, <arch>_$SIZE
#   ARCHIVES              "FILE URL...": what is downloaded; checksums are in HERE/checksums
#   TEXTS                 "SPLIT FILE MEMBER FILE MEMBER": where source and target of train, valid, test stand
#   TITLES                1: titles and descriptions of talks are text
#   TOKENIZE              flags of prepare_text.py tokenize
#   LONGEST RATIO         training pairs beyond so many tokens, or so unlike in length, are left out
#   HOLD_OUT              if set, every so manyth training pair is the valid set, and TEXTS has none
#   MERGES SEPARATE       BPE merges; 1: codes and dictionary of each side by itself
#   SEARCH                the teacher's beam, to distil and to score
#   SCORE                 flags of expected.py
# 3_teacher.sh and each 5_<method>.sh, one a method, set what a training is, after they have sourced recipe.sh:
#   METHOD FLAGS          its name, and fairseq-train's flags
#   FINETUNE              if set, flags of a second training, from the first one's model, for FINETUNE_UPDATES
#   LATENT                if set, another method's model that it stands on
#   TOKENS UPDATES BEST   target tokens an update, updates, checkpoints averaged, the best by BLEU
#   DECODES               "ID FLAGS...": each way that its model decodes
# shellcheck disable=SC2034,SC2153,SC2154,SC1091  # variables for lib.sh; variables from recipe.sh
BEGUN_IN=$PWD
OUT=${OUT:-$HERE/out}
JOBS=${JOBS:-$(nproc)}
# The GPUs that this machine shows, or those of CUDA_VISIBLE_DEVICES; of them the first $GPUS.
if [[ -v CUDA_VISIBLE_DEVICES ]]; then
  IFS=, read -ra SEEN <<<"$CUDA_VISIBLE_DEVICES"
else
  mapfile -t SEEN < <(nvidia-smi -L 2>/dev/null | grep -o '^GPU [0-9]*' | cut -d ' ' -f 2)
fi
GPUS=${GPUS:-${#SEEN[@]}}
CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${SEEN[*]:0:GPUS}")
export CUDA_VISIBLE_DEVICES
if ((GPUS > 0)); then GPU=1; fi
# shellcheck source=examples/lib.sh
source "$HERE/../lib.sh"
RAW=$OUT/raw TOKENIZED=$OUT/tokenized KEPT=$OUT/kept BPE=$OUT/bpe MODELS=$OUT/models DOWNLOAD=$OUT/download
PAIR=$SOURCE-$TARGET
CHECKSUMS=${CHECKSUMS:-$HERE/checksums}
if [[ -z ${DRY_RUN:-} ]] && ((GPUS > ${#SEEN[@]})); then fail "GPUS=$GPUS, but ${#SEEN[@]} are to be seen"; fi
case ${DATA:=distilled} in distilled | raw) ;; *) fail "DATA is distilled or raw, not $DATA" ;; esac
SEPARATE=${SEPARATE:-}

# begin FILE FUNCTION ARGUMENT...: the function, where FILE was called and not sourced
begin() {
  local file=$1 function=$2
  shift 2
  [[ $file == "$0" ]] || return 0
  if [[ ${1:-} == --offline ]]; then
    (($# > 1)) || fail "$1 wants a folder"
    OFFLINE=$(cd "$BEGUN_IN" && realpath "$2")
    shift 2
  fi
  if [[ $function != decode ]] && (($#)); then fail "unknown option $1; there is --offline DIR"; fi
  "$function" "$@"
}

# both STEM: the files of both sides, in $BOTH
both() { BOTH=("$1.$SOURCE" "$1.$TARGET"); }

# Splits that come from archives.
splits() {
  local held='^$'
  if [[ -n ${HOLD_OUT:-} ]]; then held='^valid$'; fi
  printf '%s\n' "${TEXTS[@]}" | cut -d ' ' -f 1 | grep -v "$held" | sort -u
}

# take NAME: an archive of $ARCHIVES. Where no checksum was published it is that of the first download; what is there and
# has it is not asked for again.
take() {
  local archive words sum mirrors file=$DOWNLOAD/$1 sums=("$CHECKSUMS")
  if [[ -e $DOWNLOAD/sha256sums ]]; then sums+=("$DOWNLOAD/sha256sums"); fi
  for archive in "${ARCHIVES[@]}"; do
    read -ra words <<<"$archive"
    [[ ${words[0]} == "$1" ]] || continue
    read -ra mirrors <<<"${MIRRORS:-}"
    sum=$(awk -v name="$1" '$2 == name { print $1; exit }' "${sums[@]}")
    if [[ -z ${DRY_RUN:-} && -f $file && -n $sum ]] && _is_served "$file" "$sum" "$file"; then return; fi
    fetch "$file" "${sum:--}" "${mirrors[@]/%//$1}" "${words[@]:1}"
    return
  done
}

download() {
  local archive
  for archive in "${ARCHIVES[@]%% *}"; do step "1-download-$archive" to "$DOWNLOAD/$archive" -- take "$archive"; done
}

extract() {
  local split=$1 text words from=()
  for text in "${TEXTS[@]}"; do
    read -ra words <<<"$text"
    if [[ ${words[0]} == "$split" ]]; then from+=(--from "$DOWNLOAD/${words[1]}" "${words[2]}" "$DOWNLOAD/${words[3]}" "${words[4]}"); fi
  done
  both "$RAW/$split"
  run python scripts/extract_text.py "${from[@]}" ${TITLES:+--titles} --output "${BOTH[@]}"
}

tokenize() {
  local split=$1 lang
  for lang in "$SOURCE" "$TARGET"; do
    run python scripts/prepare_text.py tokenize --input "$RAW/$split.$lang" --lang "$lang" --jobs "$JOBS" "${TOKENIZE[@]}" \
      --output "$TOKENIZED/$split.$lang"
  done
}

keep() {
  local held=()
  both "$TOKENIZED/valid"
  if [[ -n ${HOLD_OUT:-} ]]; then held=(--hold-out "$HOLD_OUT" "${BOTH[@]}"); fi
  run python scripts/filter_pairs.py --input "$TOKENIZED/train.$SOURCE" "$TOKENIZED/train.$TARGET" \
    --output "$KEPT/train.$SOURCE" "$KEPT/train.$TARGET" --longest "$LONGEST" --ratio "$RATIO" "${held[@]}"
}

learn_bpe() {
  local lang learn=(python scripts/prepare_text.py learn --tokenized --merges "$MERGES")
  export TQDM_DISABLE=1
  if [[ -z $SEPARATE ]]; then
    run "${learn[@]}" --input "$KEPT/train.$SOURCE:$SOURCE" "$KEPT/train.$TARGET:$TARGET" --codes "$OUT/codes.$SOURCE"
    run cp "$OUT/codes.$SOURCE" "$OUT/codes.$TARGET"
  else
    for lang in "$SOURCE" "$TARGET"; do
      run "${learn[@]}" --input "$KEPT/train.$lang:$lang" --codes "$OUT/codes.$lang"
    done
  fi
}

apply_bpe() {
  local split lang text=$KEPT
  for split in train valid test; do
    for lang in "$SOURCE" "$TARGET"; do
      run python scripts/prepare_text.py apply --tokenized --input "$text/$split.$lang" --lang "$lang" --jobs "$JOBS" \
        --codes "$OUT/codes.$lang" --output "$BPE/$split.$lang"
    done
    text=$TOKENIZED
  done
}

prepare() {
  local split kept codes archives=("${ARCHIVES[@]%% *}") tokenized=() bpe=() BOTH
  archives=("${archives[@]/#/$DOWNLOAD/}")
  for split in $(splits); do
    both "$RAW/$split"
    local raw=("${BOTH[@]}")
    SEAL="${TEXTS[*]} ${TITLES:-}" step "2-extract-$split" from "${archives[@]}" to "${raw[@]}" -- extract "$split"
    both "$TOKENIZED/$split"
    SEAL=${TOKENIZE[*]} step "2-tokenize-$split" from "${raw[@]}" to "${BOTH[@]}" -- tokenize "$split"
    tokenized+=("${BOTH[@]}")
  done
  both "$KEPT/train" && kept=("${BOTH[@]}")
  both "$OUT/codes" && codes=("${BOTH[@]}")
  for split in train valid test; do both "$BPE/$split" && bpe+=("${BOTH[@]}"); done
  both "$TOKENIZED/valid"
  if [[ -n ${HOLD_OUT:-} ]]; then kept+=("${BOTH[@]}"); fi
  SEAL="$LONGEST $RATIO ${HOLD_OUT:-}" step 2-filter from "$TOKENIZED/train.$SOURCE" "$TOKENIZED/train.$TARGET" \
    to "${kept[@]}" -- keep
  SEAL="$MERGES $SEPARATE" step 2-learn-bpe from "$KEPT/train.$SOURCE" "$KEPT/train.$TARGET" to "${codes[@]}" -- learn_bpe
  step 2-apply-bpe from "${kept[@]}" "${tokenized[@]}" "${codes[@]}" to "${bpe[@]}" -- apply_bpe
  SEAL=$SEPARATE step 2-binarise from "${bpe[@]}" to "$OUT/bin/dict.$TARGET.txt" "$OUT/bin/train.$PAIR.$TARGET.bin" -- \
    binarise "$OUT/bin" --trainpref "$BPE/train" --validpref "$BPE/valid" --testpref "$BPE/test"
}

# A teacher of the size of <arch>_tiny, to try a recipe in minutes.
TINY=()
if [[ $SIZE == tiny ]]; then
  TINY=(--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 64
    --decoder-ffn-embed-dim 64 --encoder-attention-heads 2 --decoder-attention-heads 2)
fi

# What all trainings share. BLEU of the valid set is of detokenised text and chooses checkpoints.
COMMON=(--task translation_nar "${DEVICE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --seed "${SEED:-1}"
  --optimizer adam --log-interval 100 --eval-bleu --eval-bleu-remove-bpe --eval-bleu-detok moses
  --best-checkpoint-metric bleu --maximize-best-checkpoint-metric --no-epoch-checkpoints --save-interval-updates 2000
  --validate-interval-updates 2000 --keep-interval-updates 1)
SHARED=() # of models with embeddings of their own
if [[ -z $SEPARATE ]]; then SHARED=(--share-all-embeddings); fi
HALF=() # of fairseq-generate, which knows no bfloat16
case ${PRECISION:=fp16} in
  fp16 | bf16) if ((GPUS > 0)); then COMMON+=("--$PRECISION") HALF=(--fp16); fi ;;
  fp32) ;;
  *) fail "PRECISION is fp16, bf16 or fp32, not $PRECISION" ;;
esac

# What starts a training on several machines: srun within a job of SLURM, else torchrun, with the first machine's address in
# MASTER.
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
# $WORKERS machines, as often as it takes. No fewer than LEAST_TOKENS, lest long sentences find no room: then by one machine,
# and by fewer processes.
LEAST_TOKENS=1024
spread() {
  local here=$((GPUS > 0 ? GPUS : 1)) most=${MAX_TOKENS:-8192} processes at_once times
  [[ $most =~ ^[1-9][0-9]*$ && $TOKENS =~ ^[1-9][0-9]*$ ]] || fail "MAX_TOKENS and TOKENS want whole numbers above 0"
  WORKERS=$MACHINES
  if ((TOKENS < LEAST_TOKENS * here * MACHINES)); then WORKERS=1; fi
  processes=$((here * WORKERS))
  if ((TOKENS < LEAST_TOKENS * processes)); then processes=$((TOKENS < LEAST_TOKENS ? 1 : TOKENS / LEAST_TOKENS)); fi
  times=$(((TOKENS + processes * most - 1) / (processes * most)))
  at_once=$((TOKENS / (processes * times)))
  SPREAD=(--distributed-world-size "$processes" --max-tokens "$at_once" --update-freq "$times")
  echo "an update of $((processes * at_once * times)) tokens ($TOKENS asked): $processes processes x $at_once x $times"
}

# fit NAME DATA: the training that the variables say. It is the same training on other GPUs, and with another end.
fit() {
  local SPREAD WORKERS IDENTITY="${FLAGS[*]} $TOKENS ${SEED:-1}"
  spread
  if ((WORKERS > 1)); then
    reach_machines
  elif ((MACHINE > 0)); then
    echo "so few tokens are the first machine's alone"
    return
  fi
  train "$1" "$2" "${COMMON[@]}" "${SHARED[@]}" "${SPREAD[@]}" --max-update "$UPDATES" --keep-best-checkpoints "$BEST" \
    "${FLAGS[@]}"
}

# fit_twice NAME DATA: where $FINETUNE says how, its training begins anew from the best of another
fit_twice() {
  if ((${#FINETUNE[@]} == 0)); then
    fit "$@"
    return
  fi
  fit "$1-first" "$2"
  local FLAGS=("${FINETUNE[@]}" --finetune-from-model "$MODELS/$1-first.pt") UPDATES=$FINETUNE_UPDATES
  fit "$@"
}
FINETUNE=()

# The training of 3_teacher.sh or a 5_<method>.sh: on distilled data, with DATA=raw (and the teacher) on human translations.
learn() {
  local name=$METHOD data=$OUT/bin-distilled
  if [[ $METHOD == teacher || $DATA == raw ]]; then data=$OUT/bin; fi
  if [[ $METHOD != teacher && $DATA == raw ]]; then name+=-raw; fi
  SEAL="${FLAGS[*]} ${FINETUNE[*]} $TOKENS $UPDATES $BEST ${SEED:-1}" step "${0##*/}${name#"$METHOD"}" \
    from "$data/train.$PAIR.$TARGET.bin" ${LATENT:+"$LATENT"} to "$MODELS/$name.pt" -- fit_twice "$name" "$data"
}

# The shards of all machines; the one that ends last puts them together.
distil_all() {
  local shards=()
  ((MACHINE > 0)) || run rm -f "$OUT/distilled/manifest.json"
  if ((GPUS > 0)); then shards=(--gpus "$GPUS" --jobs "$GPUS" --shards "$((4 * GPUS * MACHINES))"); fi
  distil "$OUT/distilled" "${SEARCH[@]}" "${shards[@]}" --machine "$MACHINE/$MACHINES" -- "${DEVICE[@]}" \
    "${HALF[@]}"
  [[ -n ${DRY_RUN:-} || -e $OUT/distilled/manifest.json ]] || ((MACHINE > 0)) ||
    fail "shards of other machines are missing: call this again when they are done"
}

distil_and_binarise() {
  local dictionaries=(--srcdict "$OUT/bin/dict.$SOURCE.txt") BOTH
  if [[ -n $SEPARATE ]]; then dictionaries+=(--tgtdict "$OUT/bin/dict.$TARGET.txt"); fi
  both "$OUT/distilled/train"
  SEAL=${SEARCH[*]} step 4-distil from "$MODELS/teacher.pt" "$BPE/train.$SOURCE" "$BPE/train.$TARGET" \
    to "${BOTH[@]}" "$OUT/distilled/manifest.json" -- distil_all
  if ((MACHINE > 0)); then return; fi
  SEAL=$SEPARATE step 4-binarise from "${BOTH[@]}" "$OUT/distilled/manifest.json" \
    to "$OUT/bin-distilled/train.$PAIR.$TARGET.bin" -- binarise "$OUT/bin-distilled" --trainpref "$OUT/distilled/train" \
    --validpref "$BPE/valid" --testpref "$BPE/test" "${dictionaries[@]}"
}

# hypothesize ID MODEL FLAGS...: as many hypotheses as sources
hypothesize() {
  local id=$1 model=$2 log=$OUT/logs/$1.decode.log hypotheses=$OUT/hypotheses/$1.txt
  if [[ " ${*:3} " == *" --iter-decode-with-external-reranker "* ]]; then model+=:$MODELS/teacher.pt; fi
  local command=(fairseq-generate "$OUT/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --gen-subset test
    --path "$model" --batch-size "${DECODE_BATCH:-50}" --tokenizer moses --bpe subword_nmt --bpe-codes "$OUT/codes.$SOURCE"
    "${@:3}")
  if [[ -n ${DRY_RUN:-} ]]; then
    run "${command[@]}"
    return
  fi
  mkdir -p "$OUT/hypotheses" "$OUT/logs"
  "${command[@]}" 2>"$log" | grep '^D-' | sort -V | cut -f 3- >"$hypotheses.part" || fail "fairseq-generate failed; see $log"
  (($(wc -l <"$hypotheses.part") == $(wc -l <"$RAW/test.$TARGET"))) || fail "hypotheses are missing; see $hypotheses.part"
  mv "$hypotheses.part" "$hypotheses"
}

# decode_model NAME SUFFIX ID...: every way of $DECODES, or those of them that are asked for; a model that was not trained is
# passed over
decode_model() {
  local decode words id asked=" ${*:3} "
  for decode in "${DECODES[@]}"; do KNOWN+=" ${decode%% *}$2 "; done
  if [[ -z ${DRY_RUN:-} && ! -e $MODELS/$1.pt ]]; then
    echo "== $1: not trained, left out"
    return
  fi
  for decode in "${DECODES[@]}"; do
    read -ra words <<<"$decode"
    id=${words[0]}$2
    if (($# > 2)) && [[ $asked != *" $id "* ]]; then continue; fi
    step "6-decode-$id" from "$MODELS/$1.pt" "$OUT/bin/dict.$TARGET.txt" "$RAW/test.$TARGET" to "$OUT/hypotheses/$id.txt" -- \
      hypothesize "$id" "$MODELS/$1.pt" "${words[@]:1}"
  done
}

# decode [ID...]
decode() {
  local file id KNOWN=''
  for file in "$HERE"/3_teacher.sh "$HERE"/5_*.sh; do
    # shellcheck source=examples/wmt14_en_de/5_mask_predict.sh
    source "$file"
    decode_model "$METHOD" "" "$@"
    if [[ $METHOD != teacher && -e $MODELS/$METHOD-raw.pt ]]; then decode_model "$METHOD-raw" -raw "$@"; fi
  done
  for id in "$@"; do [[ $KNOWN == *" $id "* ]] || fail "nothing decodes as $id; there are:$KNOWN"; done
}

score() {
  run python scripts/expected.py "$HERE/expected.json" --reference "$RAW/test.$TARGET" --hypotheses "$OUT/hypotheses" \
    "${SCORE[@]}" --output "$OUT/scores.json"
}
