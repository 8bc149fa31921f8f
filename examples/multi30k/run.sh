#!/usr/bin/env bash
# Multi30k (Elliott et al. 2016, task 1), German to English: teacher, distilled data, students, scores, times, figures.
#   bash examples/multi30k/run.sh [--offline DIR] [--only STEP] [--retrain]
#     --offline DIR   the .gz files are taken from DIR, nothing is downloaded
#     --only STEP     that step alone; its inputs must be there (the steps' names are on the screen)
#     --retrain       the teacher and its distilled data are made anew, not taken from teacher/
# Variables choose another direction or text, for which the teacher is always trained: SOURCE, TARGET, TRAIN, VALID, TEST
# (files $URL/$TRAIN.$SOURCE.gz and so on), URL, CHECKSUMS (/dev/null where none are known), MERGES, OUT (a folder); METHODS
# chooses students, e.g. "deep_shallow"; SEED; GPU=1 computes on the GPU; JOBS trainings (2) run side by side;
# ALLOW_NOISE=1 measures on a busy machine, and marks the times. Rows and figures go to RESULTS (OUT); the committed ones
# were made with RESULTS=examples/multi30k.
# Every step is skipped when its output is there and whole; a killed run goes on where it was.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SOURCE=${SOURCE:-de} TARGET=${TARGET:-en} TRAIN=${TRAIN:-train} VALID=${VALID:-val} TEST=${TEST:-test_2016_flickr}
URL=${URL:-https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw}
CHECKSUMS=$(realpath "${CHECKSUMS:-$HERE/checksums}")
MERGES=${MERGES:-6000}
OUT=${OUT:-$HERE/out/$SOURCE-$TARGET}
RETRAIN='' ONLY='' OFFLINE=''
while (($#)); do
  case $1 in
    --retrain) RETRAIN=1 ;;
    --offline | --only)
      (($# > 1)) || { echo "run.sh: $1 wants a value" >&2 && exit 2; }
      if [[ $1 == --only ]]; then ONLY=$2; else OFFLINE=$(realpath "$2"); fi
      shift
      ;;
    *) echo "run.sh: unknown option $1; there are --offline DIR, --only STEP, --retrain" >&2 && exit 2 ;;
  esac
  shift
done
# shellcheck source=examples/lib.sh
source "$HERE/../lib.sh"
bash scripts/install.sh

RAW=$OUT/raw BPE=$OUT/bpe MODELS=$OUT/models RELEASE=${RELEASE:-$HERE/teacher} PAIR=$SOURCE-$TARGET RESULTS=${RESULTS:-$OUT}
SPLITS=(--validpref "$BPE/valid" --testpref "$BPE/test")
CORPUS="$PAIR $TRAIN $VALID $URL $MERGES"
if [[ $CORPUS != "de-en train val "*"/multi30k/"*" 6000" || ! -e $RELEASE/manifest.json ]]; then RETRAIN=1; fi

# What all trainings share. Batches are small: on one core an update costs what its tokens cost, and many updates teach
# more than large ones.
TASK=(--task translation_nar "${DEVICE[@]}" --seed "${SEED:-1}")
UPDATES=(--optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr-scheduler inverse_sqrt --warmup-updates 1000
  --max-tokens 1024 --log-interval 100 --keep-last-epochs 10 --batch-size-valid 64 --eval-bleu --eval-bleu-remove-bpe
  --eval-bleu-detok moses --best-checkpoint-metric bleu --maximize-best-checkpoint-metric)
COMMON=("${TASK[@]}" --share-all-embeddings --label-smoothing 0.1 "${UPDATES[@]}")
AUTOREGRESSIVE=(--arch transformer --criterion label_smoothed_cross_entropy --eval-bleu-args '{"beam": 1}'
  --encoder-normalize-before --decoder-normalize-before)
SMALL=(--encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256
  --encoder-attention-heads 4 --decoder-attention-heads 4)
BASE=(--encoder-embed-dim 512 --decoder-embed-dim 512 --encoder-ffn-embed-dim 2048 --decoder-ffn-embed-dim 2048
  --encoder-attention-heads 8 --decoder-attention-heads 8)
TEACHER=("${COMMON[@]}" "${AUTOREGRESSIVE[@]}" "${SMALL[@]}" --encoder-layers 4 --decoder-layers 4 --dropout 0.3
  --lr 2.5e-3 --max-epoch 37 --patience 5)
AVERAGE=5
SEARCH=(--lenpen 1.5) # of the teacher's beams; chosen on the valid set among 1, 1.5 and 2

# Each method's file says
#   <method>_data=(raw distilled)           what it is trained on
#   <method>_train DATA NAME FLAGS...       trains on the binarised DATA into models/NAME.pt
#   <method>_after=METHOD                   if it stands on another method's model
#   <method>_seeds=(2 3)                    if what its rows show may be chance: it is trained from these seeds too
#   <method>_beside=METHOD                  if its rows show another method's model too, which then has none of its own
#   <method>_best=(FLAGS)                   decodes as well as it can, whatever the time, if it can be learnt by heart
#   <method>_rows                           calls  row ID WORDS-OF-TRAINING FLAGS...  for each row with a score
#   <method>_gap                            likewise, if there is one, for what explains those rows: a table apart
#   <method>_shown=(FLAGS)                  decodes the sentences that are shown pass by pass, if any are
#   <method>_pictured=N                     sentence N (0 is the first) is the one whose latents are drawn, if it has any
#   <method>_timed MODEL TRAINED N          likewise for rows of times alone, with N tokens a hypothesis
#   <method>_base=(FLAGS)                   fairseq-train's, for the model of base size that is timed untrained
read -ra METHODS <<<"${METHODS:-$(cd "$HERE/systems" && printf '%s ' *.sh | sed 's/\.sh//g')}"
for method in "${METHODS[@]}"; do
  # shellcheck source=examples/multi30k/systems/mask_predict.sh
  source "$HERE/systems/$method.sh"
done

# download URL TRAIN VALID TEST
download() {
  local stems=("$2:train" "$3:valid" "$4:test") stem lang name sum
  mkdir -p "$RAW"
  for stem in "${stems[@]}"; do
    for lang in "$SOURCE" "$TARGET"; do
      name=${stem%:*}.$lang.gz
      sum=$(awk -v name="$name" '$2 == name { print $1 }' "$CHECKSUMS")
      fetch "$OUT/download/$name" "${sum:--}" "$1/$name"
      gunzip -c "$OUT/download/$name" >"$RAW/${stem#*:}.$lang"
      echo "$name: $(wc -l <"$RAW/${stem#*:}.$lang") lines${sum:+, checksum as recorded}"
    done
  done
}

# The released teacher, its curve and what it says to the train split; only for the very text that it was made from.
unpack() {
  local name
  python scripts/release.py check "$RELEASE" --made-from "$BPE/train.$SOURCE" "$BPE/train.$TARGET" ||
    fail "a teacher of another text must be trained: --retrain"
  mkdir -p "$MODELS" "$OUT/distilled"
  for name in teacher.pt teacher.curve.json; do cp "$RELEASE/$name" "$MODELS/$name"; done
  cp "$BPE/train.$SOURCE" "$OUT/distilled/"
  gunzip -c "$RELEASE/train.$TARGET.gz" >"$OUT/distilled/train.$TARGET"
  cp "$RELEASE/distilled.json" "$OUT/distilled/manifest.json"
}

# to_bpe with the codes of the release, once it has been found whole
to_released_bpe() {
  python scripts/release.py check "$RELEASE"
  to_bpe "$RELEASE/codes"
}

# BLEU of the valid set with beam 5, and its signature: a line for the manifests
score_teacher() {
  fairseq-generate "$OUT/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --gen-subset valid \
    --path "$MODELS/teacher.pt" --beam 5 "${SEARCH[@]}" --batch-size 50 --tokenizer moses --bpe subword_nmt \
    --bpe-codes "$OUT/codes" 2>"$OUT/logs/score.log" | grep '^D-' | sort -V | cut -f 3 >"$OUT/teacher.valid" ||
    fail "fairseq-generate failed; see $OUT/logs/score.log"
  sacrebleu "$RAW/valid.$TARGET" --input "$OUT/teacher.valid" --metrics bleu --width 2 --format text >"$OUT/teacher.bleu"
  cat "$OUT/teacher.bleu"
}

# distil with the teacher's BLEU in the manifest
distil_scored() { distil "$@" "${SEARCH[@]}" --teacher-bleu "valid: $(<"$OUT/teacher.bleu")"; }

pack() {
  local folder=$OUT/teacher
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$MODELS/teacher.pt" "$MODELS/teacher.curve.json" "$OUT/codes" "$folder/"
  cp "$OUT/bin/dict.$TARGET.txt" "$folder/dict.txt"
  cp "$OUT/distilled/manifest.json" "$folder/distilled.json"
  if (($(stat -c %s "$OUT/nbest/nbest.gz") < 20000000)); then
    cp "$OUT/nbest/manifest.json" "$folder/nbest.json"
    cp "$OUT/nbest/nbest.gz" "$folder/"
  else
    echo "the n-best list is larger than 20 MB: left out"
  fi
  gzip -9nc "$OUT/distilled/train.$TARGET" >"$folder/train.$TARGET.gz"
  python scripts/release.py pack "$folder" --made-from "$BPE/train.$SOURCE" "$BPE/train.$TARGET" \
    --command "$(words python scripts/prepare_text.py learn --input "$RAW/train.$SOURCE:$SOURCE" \
      "$RAW/train.$TARGET:$TARGET" --merges "$MERGES" --codes "$OUT/codes")" \
    --command "$(words fairseq-preprocess --source-lang "$SOURCE" --target-lang "$TARGET" --joined-dictionary \
      --trainpref "$BPE/train" "${SPLITS[@]}" --destdir "$OUT/bin")" \
    --command "$(words fairseq-train "$OUT/bin" --user-dir "$PLUGIN" --save-dir "$MODELS/teacher" "${TEACHER[@]}")" \
    --command "$(words python scripts/average_checkpoints.py --dir "$MODELS/teacher" --last "$AVERAGE" --half \
      --forget-paths --output "$MODELS/teacher.pt")"
}

# models_of METHOD WORD: a line each, its name and, but for the first, the seed that it is trained from
models_of() {
  local -n seeds=$1_seeds
  local seed
  echo "$1-$2"
  for seed in ${seeds:+"${seeds[@]}"}; do echo "$1-$2-seed$seed $seed"; done
}

# students WORD [after]: the trainings of all methods on raw or on distilled data, for  together;  after: of those that stand
# on another's model, and no others
students() {
  local data=$OUT/bin method base name seed
  [[ $1 == raw ]] || data=$OUT/bin-$1
  for method in "${METHODS[@]}"; do
    local -n trained_on=${method}_data
    base=${method}_after
    if [[ " ${trained_on[*]} " == *" $1 "* && ${!base:+after} == "${2:-}" ]]; then
      while read -r name seed; do
        JOBLIST+=(: step "$name" from "$data" ${!base:+"$MODELS/${!base}-$1.pt"} to "$MODELS/$name.pt" -- \
          "${method}_train" "$data" "$name" ${seed:+--seed "$seed"})
      done < <(models_of "$method" "$1")
    fi
  done
}

# train_latent ARCH DATA NAME FLAGS...: a latent-variable model, with free bits, which fall to none in the second half; then,
# from the average of the last checkpoints, an epoch without any (Shu et al. 2020). To learn by heart the first is enough.
train_latent() {
  local arch=$1 data=$2 name=$3 half=$FREE_UPDATES first=$3-free
  local given=("${COMMON[@]}" --arch "$arch" --criterion elbo_length --dropout 0.1 "${DEVICE[@]/--cpu/--cpu-autocast}"
    --eval-bleu-args '{"iter_decode_max_iter": 1}' "${@:4}")
  if [[ $name == *-overfit ]]; then half=1700 first=$name; fi
  train "$first" "$data" "${given[@]}" --lr 2e-3 --budget-anneal-start "$half" --budget-anneal-end $((2 * half)) \
    --max-update $((2 * half))
  if [[ $first == "$name" ]]; then return; fi
  AVERAGE='' train "$name" "$data" "${given[@]}" --budget 0 --lr-scheduler fixed --warmup-updates 0 --lr 1e-4 --max-epoch 1 \
    --finetune-from-model "$MODELS/$first.pt"
}
FREE_UPDATES=6000

# gap_latent ID METHOD: is it the length? Or what may be decoded but is not taught: repeats.
gap_latent() {
  local id=$1 model=(--baseline beam3 --path "$MODELS/$2-distilled.pt" --stop-rule none)
  row "$id-prior-gold" distilled "${model[@]}" --iter-decode-max-iter 0 --gold-target-len
  row "$id-delta-gold" distilled "${model[@]}" --iter-decode-max-iter 1 --gold-target-len
  row "$id-delta-collapsed" distilled "${model[@]}" --iter-decode-max-iter 1 --collapse-repeats
}

# time_latent ID MODEL TRAINED N: rows of 0, 1 and 4 delta steps
time_latent() {
  local steps
  for steps in 0 1 4; do
    row "$1-delta$steps" "$3" --path "$2" --iter-decode-max-iter "$steps" --stop-rule none --gold-target-len
  done
}

# train_refiner KIND DATA NAME FLAGS...: the score or the energy of lanmt_continuous, from points near the prior's mean: of
# so few updates those from afar would take most
train_refiner() {
  AVERAGE='' train "$3" "$2" "${TASK[@]}" "${UPDATES[@]}" --arch lanmt_refiner_small --criterion score_matching \
    --refiner "$1" --latent-model "$MODELS/lanmt_continuous-distilled.pt" --dropout 0.1 --start-noise 0.3 \
    --lr 1e-3 --lr-scheduler polynomial_decay --warmup-updates 300 --total-num-update 5000 --max-update 5000 \
    --rollout-start 2500 --eval-bleu-args '{"iter_decode_max_iter": 1}' "${DEVICE[@]/--cpu/--cpu-autocast}" "${@:4}"
}

train_teacher() { TO_RELEASE=1 train teacher "$OUT/bin" "$@"; }

# overfit METHOD: can the model hold what it is taught? BLEU of 1,000 training sentences learnt by heart, without dropout.
overfit() {
  local method=$1 folder=$OUT/overfit lang log=$OUT/logs/$1-overfit.decode.log
  local -n best=${method}_best
  mkdir -p "$folder/$method"
  for lang in "$SOURCE" "$TARGET"; do head -n 1000 "$BPE/train.$lang" >"$folder/$method/text.$lang"; done
  binarise "$folder/$method/bin" --srcdict "$OUT/bin/dict.$TARGET.txt" --trainpref "$folder/$method/text"
  AVERAGE='' "${method}_train" "$folder/$method/bin" "$method-overfit" --dropout 0 --max-epoch 200 --disable-validation \
    --no-epoch-checkpoints
  fairseq-generate "$folder/$method/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --gen-subset train \
    --path "$MODELS/$method-overfit.pt" "${best[@]}" --batch-size 50 --remove-bpe --scoring sacrebleu >"$log" 2>&1 ||
    fail "fairseq-generate failed; see $log"
  grep -o 'BLEU = .*' "$log" | tee "$folder/$method.txt"
}

# Sentences of N tokens that are timed: 2,000 tokens, but no fewer than 3 sentences and no more than 20.
timed() { echo $((2000 / $1 > 20 ? 20 : 2000 / $1 < 3 ? 3 : 2000 / $1)); }

# join N FOLDER DICTIONARY: the test set as sentences of N subwords on either side, binarised
join() {
  mkdir -p "$2"
  python scripts/join_sentences.py --input "$BPE/test.$SOURCE" "$BPE/test.$TARGET" --length "$1" \
    --lines "$(timed "$1")" --output "$2/test.$SOURCE" "$2/test.$TARGET"
  binarise "$2/bin" --srcdict "$3" --testpref "$2/test"
}

# An untrained model of base size: one update with a learning rate of 0.
train_base() {
  local name=$1
  shift
  AVERAGE='' train "base-$name" "$OUT/base/bin" --task translation_nar "${DEVICE[@]}" --seed 1 \
    --optimizer sgd --lr 0 --max-update 1 --max-tokens 256 --disable-validation --no-epoch-checkpoints \
    --no-save-optimizer-state "$@"
}

# measure TABLE COMMAND: the rows with scores that COMMAND asks for, beside the teacher's of the same run.
measure() {
  rm -f "$RESULTS/results/$1.json"
  ROWS=()
  "$2"
  clock "$1" "$OUT/bin" --reference "$RAW/test.$TARGET" --hypotheses "$RESULTS/hypotheses" \
    --teacher "$(words --train raw --curve "$MODELS/teacher.curve.json" --path "$MODELS/teacher.pt" "${DECODE[@]}" "${SEARCH[@]}")"
}

# time_forced METHOD.TABLE FOLDER TEACHER STUDENT N...: of both models, named with the words of their training, with
# hypotheses of N tokens.
time_forced() {
  local table=$1 folder=$OUT/$2 teacher student n
  read -ra teacher <<<"$3"
  read -ra student <<<"$4"
  shift 4
  rm -f "$RESULTS/results/$table.json"
  for n in "$@"; do
    ROWS=()
    "${table%%.*}_timed" "$MODELS/${student[0]}.pt" "${student[1]}" "$n"
    clock "$table" "$folder/$n/bin" "$n" "$(words --train "${teacher[1]}" --path "$MODELS/${teacher[0]}.pt" "${DECODE[@]}")"
  done
}

# clock TABLE DATA {N TEACHER | FLAGS...}: benchmark.py of $ROWS into results/TABLE.json; with N, every hypothesis has so
# many tokens.
clock() {
  local table=$1 data=$2
  shift 2
  if [[ $1 != --* ]]; then
    set -- --forced-length "$1" --sentences "$(timed "$1")" --teacher "$2--min-len $1 --max-len-a 0 --max-len-b $1"
  fi
  python scripts/benchmark.py "$data" "$@" --source-lang "$SOURCE" --target-lang "$TARGET" "${ROWS[@]}" \
    --output "$RESULTS/results/$table.json" ${ALLOW_NOISE:+--allow-noise}
}

# draw FIGURE...
draw() {
  local figure
  for figure in "$@"; do
    python scripts/report.py "$RESULTS/results.json" --where size=small --figure "$figure" \
      --output "$RESULTS/figures/$figure"
  done
  python scripts/training_curve.py "$MODELS/teacher.curve.json" --figure "$RESULTS/figures/teacher"
}

# show METHOD: some sentences of the test set, pass by pass
show() {
  local method=$1 sentences references i arguments=()
  mapfile -t sentences < <(head -n 8 "$RAW/test.$SOURCE")
  mapfile -t references < <(head -n 8 "$RAW/test.$TARGET")
  for i in "${!sentences[@]}"; do arguments+=(--sentence "${sentences[i]}" --reference "${references[i]}"); done
  local -n shown=${method}_shown
  python scripts/show_refinement.py "$OUT/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" \
    --path "$MODELS/$method-distilled.pt" "${shown[@]}" --tokenizer moses --bpe subword_nmt \
    --bpe-codes "$OUT/codes" "${arguments[@]}" --html "$RESULTS/refinement/$method.html"
}

# picture METHOD: how latents are refined: of one sentence, and the bound and BLEU of all by the number of steps
picture() {
  local sentence=${1}_pictured
  python scripts/report.py latents "$OUT/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" \
    --gen-subset test --batch-size 100 --remove-bpe --path "$MODELS/$1-distilled.pt" --reference "$RAW/test.$TARGET" \
    --sentence "${!sentence}" --output "$RESULTS/figures/$1" 2>"$OUT/logs/latents.log" ||
    fail "report.py latents failed; see $OUT/logs/latents.log"
}

# As many hypotheses as sources, whatever the size of a batch; equal check sums say that they are the same ones.
count() {
  local split size hypotheses=$OUT/hypotheses.tmp
  for split in valid test; do
    for size in 1 7 64; do
      fairseq-generate "$OUT/bin" "${DECODE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --gen-subset "$split" \
        --path "$MODELS/mask_predict-distilled.pt" --iter-decode-max-iter 3 --iter-decode-with-beam 2 \
        --batch-size "$size" 2>>"$OUT/logs/count.log" | grep '^H-' | sort -V | cut -f 1,3 >"$hypotheses" ||
        fail "fairseq-generate failed; see $OUT/logs/count.log"
      echo "$split, batch size $size: $(wc -l <"$hypotheses") hypotheses, md5 $(md5sum <"$hypotheses" | cut -c 1-8)"
      (($(wc -l <"$hypotheses") == $(wc -l <"$RAW/$split.$TARGET"))) || fail "hypotheses are missing"
    done
  done | tee "$OUT/counts.txt"
  rm -f "$hypotheses"
}

step download to "$RAW"/{train,valid,test}."$SOURCE" "$RAW"/{train,valid,test}."$TARGET" -- \
  download "$URL" "$TRAIN" "$VALID" "$TEST"
raw=("$RAW"/{train,valid,test}."$SOURCE" "$RAW"/{train,valid,test}."$TARGET")
texts=("$BPE"/{train,valid,test}."$SOURCE" "$BPE"/{train,valid,test}."$TARGET")
binaries=("$OUT/bin/dict.$TARGET.txt" "$OUT/bin/train.$PAIR.$TARGET.bin")
distilled=("$OUT/distilled/train.$SOURCE" "$OUT/distilled/train.$TARGET" "$OUT/distilled/manifest.json")
JOBLIST=()
SEAL="${COMMON[*]} ${AUTOREGRESSIVE[*]} ${SMALL[*]} ${SEARCH[*]} $AVERAGE"
if [[ -n $RETRAIN ]]; then
  SEAL=$MERGES step bpe from "${raw[@]}" to "$OUT/codes" "${texts[@]}" -- to_bpe
  step binarise from "$OUT/codes" to "${binaries[@]}" -- binarise "$OUT/bin" --trainpref "$BPE/train" "${SPLITS[@]}"
  students raw
  together step teacher from "$OUT/bin" to "$MODELS/teacher.pt" -- train_teacher "${TEACHER[@]}" "${JOBLIST[@]}"
  JOBLIST=()
  step score-teacher from "$MODELS/teacher.pt" to "$OUT/teacher.bleu" -- score_teacher
  step distil from "$MODELS/teacher.pt" "$OUT/teacher.bleu" to "${distilled[@]}" -- \
    distil_scored "$OUT/distilled" --beam 5 --max-tokens 4000
else
  step bpe from "${raw[@]}" "$RELEASE/codes" to "$OUT/codes" "${texts[@]}" -- to_released_bpe
  step binarise from "$OUT/codes" "$RELEASE/dict.txt" to "${binaries[@]}" -- \
    binarise "$OUT/bin" --trainpref "$BPE/train" --srcdict "$RELEASE/dict.txt" "${SPLITS[@]}"
  step unpack from "$RELEASE/manifest.json" "$OUT/codes" to "$MODELS/teacher.pt" "${distilled[@]}" -- unpack
  students raw
fi
step binarise-distilled from "$OUT/distilled/manifest.json" to "$OUT/bin-distilled/train.$PAIR.$TARGET.bin" -- \
  binarise "$OUT/bin-distilled" --trainpref "$OUT/distilled/train" --srcdict "$OUT/bin/dict.$TARGET.txt" "${SPLITS[@]}"
students distilled
for method in "${METHODS[@]}"; do
  declare -p "${method}_best" >/dev/null 2>&1 || continue
  JOBLIST+=(: step "overfit-$method" from "$OUT/bin" to "$OUT/overfit/$method.txt" -- overfit "$method")
done
together "${JOBLIST[@]}"
JOBLIST=()
students distilled after
if ((${#JOBLIST[@]})); then together "${JOBLIST[@]}"; fi

SEAL=''
LENGTHS=(10 25 50 100 250 500 1000) BASE_LENGTHS=(25 60)
joined=() base_joined=()
for n in "${LENGTHS[@]}"; do
  joined+=("$OUT/joined/$n/bin/test.$PAIR.$TARGET.bin")
  step "join-$n" from "$OUT/bin" to "${joined[-1]}" -- join "$n" "$OUT/joined/$n" "$OUT/bin/dict.$TARGET.txt"
done
step base-dictionary from "$OUT/codes" to "$OUT/base/bin/dict.$TARGET.txt" -- \
  binarise "$OUT/base/bin" --trainpref "$BPE/train" --padding-factor 32000
for n in "${BASE_LENGTHS[@]}"; do
  base_joined+=("$OUT/base/$n/bin/test.$PAIR.$TARGET.bin")
  step "base-join-$n" from "$OUT/base/bin" to "${base_joined[-1]}" -- \
    join "$n" "$OUT/base/$n" "$OUT/base/bin/dict.$TARGET.txt"
done
step base-teacher from "$OUT/base/bin" to "$MODELS/base-teacher.pt" -- \
  train_base teacher --share-all-embeddings "${AUTOREGRESSIVE[@]:0:4}" "${BASE[@]}" --encoder-layers 6 --decoder-layers 6
for method in "${METHODS[@]}"; do
  declare -p "${method}_base" >/dev/null 2>&1 || continue
  declare -n flags=${method}_base
  base=${method}_after
  step "base-$method" from "$OUT/base/bin" ${!base:+"$MODELS/base-${!base}.pt"} to "$MODELS/base-$method.pt" -- \
    train_base "$method" "${flags[@]}"
done
tables=()
for method in "${METHODS[@]}"; do
  declare -F "${method}_rows" >/dev/null || continue
  beside=${method}_beside
  declare -n trained_on=${method}_data
  SEAL="$(declare -f "${method}_rows" "${method}_timed") ${DECODE[*]} ${SEARCH[*]} ${ALLOW_NOISE:-}"
  trained=()
  for data in "${trained_on[@]}"; do
    trained+=("$MODELS/$method-$data.pt" ${!beside:+"$MODELS/${!beside}-$data.pt"})
  done
  tables+=("$RESULTS/results/$method.json" "$RESULTS/results/$method.lengths.json" "$RESULTS/results/$method.base.json")
  step "measure-$method" from "$MODELS/teacher.pt" "${trained[@]}" to "${tables[-3]}" -- \
    measure "$method" "${method}_rows"
  step "lengths-$method" from "$MODELS/teacher.pt" "$MODELS/$method-distilled.pt" "${joined[@]}" to "${tables[-2]}" -- \
    time_forced "$method.lengths" joined "teacher raw" "$method-distilled distilled" "${LENGTHS[@]}"
  step "clock-$method" from "$MODELS/base-teacher.pt" "$MODELS/base-$method.pt" "${base_joined[@]}" to "${tables[-1]}" -- \
    time_forced "$method.base" base "base-teacher untrained" "base-$method untrained" "${BASE_LENGTHS[@]}"
done
for method in "${METHODS[@]}"; do
  declare -F "${method}_gap" >/dev/null || continue
  SEAL="$(declare -f "${method}_gap") ${DECODE[*]} ${SEARCH[*]} ${ALLOW_NOISE:-}"
  trained=() beside=${method}_beside
  for name in "$method" ${!beside:+"${!beside}"}; do
    while read -r name _; do trained+=("$MODELS/$name.pt"); done < <(models_of "$name" distilled)
  done
  step "gap-$method" from "$MODELS/teacher.pt" "${trained[@]}" to "$RESULTS/results/$method.gap.json" -- \
    measure "$method.gap" "${method}_gap"
done
SEAL=''
step assemble from "${tables[@]}" to "$RESULTS/results.json" -- \
  python scripts/results.py assemble "${tables[@]}" --output "$RESULTS/results.json"
figures=(latency speed)
if [[ ${METHODS[*]} != deep_shallow ]]; then figures+=(steps); fi # an autoregressive model has none
drawn=("${figures[@]/#/$RESULTS/figures/}" "$RESULTS/figures/teacher")
step figures from "$RESULTS/results.json" to "${drawn[@]/%/.png}" "${drawn[@]/%/.svg}" -- draw "${figures[@]}"
if [[ " ${METHODS[*]} " == *" mask_predict "* ]]; then
  step count from "$OUT/bin" "$MODELS/mask_predict-distilled.pt" to "$OUT/counts.txt" -- count
fi
for method in "${METHODS[@]}"; do
  declare -p "${method}_shown" >/dev/null 2>&1 || continue
  step "show-$method" from "$MODELS/$method-distilled.pt" to "$RESULTS/refinement/$method.html" -- show "$method"
done
for method in "${METHODS[@]}"; do
  declare -p "${method}_pictured" >/dev/null 2>&1 || continue
  pictures=("$RESULTS/figures/$method".{plane,bound,bleu})
  step "latents-$method" from "$OUT/bin" "$MODELS/$method-distilled.pt" to "${pictures[@]/%/.png}" "${pictures[@]/%/.svg}" -- \
    picture "$method"
done
if [[ -n $RETRAIN ]]; then
  step nbest from "$MODELS/teacher.pt" to "$OUT/nbest/nbest.gz" -- \
    distil_scored "$OUT/nbest" --beam 20 --nbest 20 --max-tokens 2000
  step pack from "$OUT/distilled/manifest.json" "$OUT/nbest/manifest.json" to "$OUT/teacher/manifest.json" -- pack
fi
check_only
if [[ -n $ONLY ]]; then exit; fi
say "results ($RESULTS/results.json)"
python scripts/report.py "$RESULTS/results.json"
