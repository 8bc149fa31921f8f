#!/usr/bin/env bash
# Multi30k (Elliott et al. 2016, task 1), German to English: teacher, distilled data, students, scores, times, figures.
#   bash examples/multi30k/run.sh [STEP...]        --help names the steps
# The teacher and what it says to the training text are taken from teacher/, students from students/; RETRAIN=students trains
# these anew, RETRAIN=1 all. Another direction or text, for
# which the teacher is always trained: SOURCE, TARGET, TRAIN, VALID, TEST (files URL/TRAIN.SOURCE.gz and so on), URL, CHECKSUMS
# (/dev/null where none are known), MERGES. Rows and figures go to RESULTS; the committed ones are of RESULTS=examples/multi30k.
SOURCE=${SOURCE:-de} TARGET=${TARGET:-en} TRAIN=${TRAIN:-train} VALID=${VALID:-val} TEST=${TEST:-test_2016_flickr}
URL=${URL:-https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw} MERGES=${MERGES:-6000}
OUT=${OUT:-$(dirname "${BASH_SOURCE[0]}")/out/$SOURCE-$TARGET} SIZE=${SIZE:-small} JOBS=${JOBS:-2} TOKENIZE=()
SEARCH=(--beam 5 --lenpen 1.5) # of the teacher's beams; chosen on the valid set among 1, 1.5 and 2
for split in "$TRAIN" "$VALID" "$TEST"; do
  for lang in "$SOURCE" "$TARGET"; do ARCHIVES+=("$split.$lang.gz $URL/$split.$lang.gz"); done
done
TEXTS=("train $TRAIN.$SOURCE.gz - $TRAIN.$TARGET.gz -" "valid $VALID.$SOURCE.gz - $VALID.$TARGET.gz -"
  "test $TEST.$SOURCE.gz - $TEST.$TARGET.gz -")
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
STEPS=(download prepare teacher distil students overfit lengths base engines speed measure unmask starts figures show latents report)
# Batches are small: on one core an update costs what its tokens cost, and many updates teach more than large ones.
COMMON=(--adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr-scheduler inverse_sqrt --warmup-updates 1000 --keep-last-epochs 10
  --batch-size-valid 64 "${VALIDATED[@]}")
# Students that begin as their teacher learn by a rate that falls in a line, to nothing at the end; the number follows.
FALLING=(--lr-scheduler polynomial_decay --warmup-updates 300 --total-num-update)
OWN+=(--label-smoothing 0.1) LASTS=(1024) AVERAGE=(--last 5) STORED=(--half --forget-paths) DISTIL=(--max-tokens 4000)
BASE_TRANSFORMER=(--arch transformer --criterion label_smoothed_cross_entropy --encoder-embed-dim 512 --decoder-embed-dim 512
  --encoder-ffn-embed-dim 2048 --decoder-ffn-embed-dim 2048 --encoder-attention-heads 8 --decoder-attention-heads 8)

# The released teacher belongs to this very text, the students to this very teacher.
STUDENTS=${STUDENTS:-$HERE/students} TAUGHT_BY=("$MODELS/teacher.pt" "$OUT/distilled"/train.{"$SOURCE","$TARGET"})
RELEASE=${RELEASE:-$HERE/teacher} MADE_FROM=("$BPE/train.$SOURCE" "$BPE/train.$TARGET")
CORPUS_OF_RELEASE="de-en train val https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw 6000"
if [[ ${RETRAIN:-students} != students || "$PAIR $TRAIN $VALID $URL $MERGES" != "$CORPUS_OF_RELEASE" || ! -e $RELEASE/manifest.json ]]; then
  STEPS+=(release)
  do_teacher() {
    students teacher
    step score-teacher from "$MODELS/teacher.pt" to "$OUT/teacher.bleu" -- score_teacher
  }
else
  DICTIONARY=(--srcdict "$RELEASE/dict.txt") CODES_FROM=("$RELEASE/codes")
  learn_bpe() { run nar release check "$RELEASE" && run cp "$RELEASE/codes" "$OUT/codes"; }
  distil() { if [[ -n ${DRY_RUN:-} ]]; then echo "# comes with the teacher, from $RELEASE"; fi; }
  first_answers() { if ((NBEST == 20)); then take_answers; else answers_of "$MODELS/teacher.pt" "$OUT/nbest"; fi; }
  do_teacher() {
    step unpack from "$RELEASE/manifest.json" "$OUT/codes" to "$MODELS/teacher.pt" "$MODELS/teacher.curve.json" \
      "$OUT/distilled"/{train."$SOURCE",train."$TARGET",manifest.json} -- unpack
  }
  released() { if [[ -z ${RETRAIN:-} && -e $STUDENTS/$1.pt ]]; then echo "$STUDENTS/$1.pt"; fi; }
fi
take_released() {
  run nar release check "$STUDENTS" --made-from "${TAUGHT_BY[@]}"
  run cp "$STUDENTS/$1".{pt,curve.json} "$MODELS/"
}
take_answers() {
  run nar release check "$RELEASE" --made-from "${MADE_FROM[@]}"
  run mkdir -p "$OUT/nbest"
  run cp "$RELEASE/nbest.json" "$OUT/nbest/manifest.json"
  run cp "$RELEASE/nbest.gz" "$OUT/nbest/nbest.gz"
}
unpack() {
  run nar release check "$RELEASE" --made-from "${MADE_FROM[@]}"
  run mkdir -p "$MODELS" "$OUT/distilled"
  run cp "$RELEASE"/{teacher.pt,teacher.curve.json} "$MODELS"
  run cp "$BPE/train.$SOURCE" "$OUT/distilled/"
  run cp "$RELEASE/distilled.json" "$OUT/distilled/manifest.json"
  run_to "$OUT/distilled/train.$TARGET" gunzip -c "$RELEASE/train.$TARGET.gz"
}
# BLEU of the valid set with beam 5, and its signature: a line for the manifests
score_teacher() {
  generate "$OUT/teacher.valid" valid --path "$MODELS/teacher.pt" "${SEARCH[@]}"
  run_to "$OUT/teacher.bleu" sacrebleu "$RAW/valid.$TARGET" --input "$OUT/teacher.valid" --metrics bleu --width 2 --format text
}

# overfit METHOD: can the model hold what it is taught? BLEU of 1,000 training sentences learnt by heart, without dropout.
overfit() {
  local folder=$OUT/overfit/$1 lang WARM_START=0
  use "$1"
  WEIGHTS=() RELEASED=()
  run mkdir -p "$folder"
  for lang in "${LANGS[@]}"; do run_to "$folder/text.$lang" head -n 1000 "$BPE/train.$lang"; done
  binarise "$folder/bin" --srcdict "$OUT/bin/dict.$TARGET.txt" --trainpref "$folder/text"
  if [[ -n $COUNTED ]]; then
    count_words "$folder/text" "$folder/bin" "$folder/counts"
    OVERFIT+=(--word-counts "$folder/counts")
  fi
  train_on "$folder/bin" "$1-overfit" "${FLAGS[@]}" "${OVERFIT[@]}" --dropout 0 --max-epoch 200 --disable-validation --no-epoch-checkpoints
  run_to "$folder.txt" fairseq-generate "$folder/bin" "${DECODE[@]}" --gen-subset train --path "$MODELS/$1-overfit.pt" "${OVERFIT_WAY[@]}" \
    --batch-size 50 --remove-bpe --scoring sacrebleu
}
add_overfit() { OVERFITS+=("$(words step "overfit-$1" from "$OUT/bin/dict.$TARGET.txt" to "$OUT/overfit/$1.txt" -- overfit "$1")"); }
do_overfit() {
  local OVERFITS=()
  where OVERFIT_WAY add_overfit
  together "${OVERFITS[@]}"
}

# join N FOLDER DICTIONARY [FLAGS...]: the test set as sentences of N subwords on either side, binarised
join() {
  run nar join --input "$BPE/test".{"$SOURCE","$TARGET"} --length "$1" --output "$2/test".{"$SOURCE","$TARGET"} "${@:4}"
  binarise "$2/bin" --srcdict "$3" --testpref "$2/test"
}
# clock_lengths METHOD TABLE FOLDER TEACHER STUDENT TRAIN N...: hypotheses of N tokens of two models, by ways for times alone
clock_lengths() {
  local way words table=$RESULTS/results/$2.json baseline=() ROWS=()
  use "$1"
  if [[ $BASELINE == greedy ]]; then baseline=(--baseline greedy); fi
  for way in "${TIMED[@]}"; do
    read -ra words <<<"$way"
    ROWS+=(--system "$ID-${words[0]}" "$(words --train "$6" "${baseline[@]}" --path "$MODELS/$5.pt" "${DECODE[@]}" "${words[@]:1}")")
  done
  run rm -f "$table"
  run nar benchmark "$3/LENGTH/bin" --forced-length "${@:7}" --source-lang "$SOURCE" --target-lang "$TARGET" "${ROWS[@]}" --output "$table" \
    --teacher "$(words --train "${6/distilled/raw}" --path "$MODELS/$4.pt" "${DECODE[@]}" --min-len LENGTH --max-len-a 0 --max-len-b LENGTH)" \
    ${ALLOW_NOISE:+--allow-noise}
}
# clock_all TABLE FOLDER DICTIONARY TRAIN TEACHER STUDENT N...: for all methods; METHOD in STUDENT stands for its name
clock_all() {
  local n method student joined=()
  for n in "${@:7}"; do
    joined+=("$2/$n/bin/test.$PAIR.$TARGET.bin")
    step "join-$1-$n" from "$3" to "${joined[-1]}" -- join "$n" "$2/$n" "$3"
  done
  for method in "${METHODS[@]}"; do
    use "$method"
    if [[ " ${DATASETS[*]} " != *" distilled "* ]]; then continue; fi # as autoregressive as the teacher, and of its size
    student=${6/METHOD/$method}
    step "$1-$method" from "$MODELS/$5.pt" "$MODELS/$student.pt" "${joined[@]}" to "$RESULTS/results/$method.$1.json" -- \
      clock_lengths "$method" "$method.$1" "$2" "$5" "$student" "$4" "${@:7}"
  done
}
do_lengths() {
  clock_all lengths "$OUT/joined" "$OUT/bin/dict.$TARGET.txt" distilled teacher METHOD-distilled 10 25 50 100 250 500 1000
}

# train_base METHOD: its untrained model of base size: one update with a learning rate of 0
train_base() {
  use "$1"
  if [[ -n $ARCH ]]; then BASE+=(--arch "${ARCH}_wmt14_en_de" --criterion "$CRITERION"); fi
  if ((${#SHARED[@]})); then BASE+=(--share-all-embeddings); fi
  if [[ -n $COUNTED ]]; then
    count_words "$BPE/train" "$OUT/base/bin" "$OUT/base/counts"
    BASE+=(--word-counts "$OUT/base/counts")
  fi
  WEIGHTS=() RELEASED=()
  train "base-$1" "$OUT/base/bin" --task translation_nar "${DEVICE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --seed 1 \
    --optimizer sgd --lr 0 --max-update 1 --max-tokens 256 --disable-validation --no-epoch-checkpoints --no-save-optimizer-state "${BASE[@]}"
}
do_base() {
  local method dictionary=$OUT/base/bin/dict.$TARGET.txt
  step base-dictionary from "$BPE/train.$SOURCE" to "$dictionary" -- binarise "$OUT/base/bin" --trainpref "$BPE/train" --padding-factor 32000
  for method in teacher "${METHODS[@]}"; do
    use "$method"
    step "train-base-$method" from "$dictionary" ${AFTER:+"$MODELS/base-$AFTER.pt"} to "$MODELS/base-$method.pt" -- train_base "$method"
  done
  clock_all base "$OUT/base" "$dictionary" untrained base-teacher base-METHOD 25 60
}

source "$HERE/engines.sh"
source "$HERE/starts.sh"

# What explains the rows on distilled data: other ways, and the same ones from other seeds.
add_explained() {
  if [[ -n $SEEDED ]]; then add_rows "${WAYS[@]}"; elif [[ $DATA == distilled ]]; then add_rows "${EXPLAINED[@]}"; fi
}
more_tables() {
  local NEEDED=("$MODELS/teacher.pt")
  TABLES+=("$RESULTS/results"/engines.json)
  for method in "${METHODS[@]}"; do
    use "$method"
    if [[ " ${DATASETS[*]} " == *" distilled "* ]]; then TABLES+=("$RESULTS/results/$method".{lengths,base}.json); fi
    if ((${#EXPLAINED[@]} + ${#SEEDS[@]})); then
      each_model "$method" add_model all
      step "gap-$method" from "${NEEDED[@]}" to "$RESULTS/results/$method.gap.json" -- clock "$method" "$method.gap" add_explained
    fi
  done
}

do_figures() {
  step figures from "$RESULTS/results.json" to "$RESULTS/figures"/{latency,speed}.{png,svg} -- \
    nar report "$RESULTS/results.json" --where size=small --figure all --output "$RESULTS/figures"
  step figure-teacher from "$MODELS/teacher.curve.json" to "$RESULTS/figures/teacher".{png,svg} -- \
    nar curve "$MODELS/teacher.curve.json" --figure "$RESULTS/figures/teacher"
}
# Some sentences of the test set, pass by pass
show() { step "show-$1" from "$MODELS/$NAME.pt" to "$RESULTS/refinement/$1.html" -- show_passes "$1"; }
show_passes() {
  run nar show "$OUT/bin" "${DECODE[@]}" --path "$MODELS/$NAME.pt" "${SHOWN[@]}" --tokenizer moses --bpe subword_nmt --bpe-codes "$OUT/codes" \
    --input "$RAW/test.$SOURCE" --references "$RAW/test.$TARGET" --first 8 --html "$RESULTS/refinement/$1.html"
}
do_show() { where SHOWN show; }
# How latents are refined: of one sentence, and the bound and BLEU of all by the number of steps
picture() { step "latents-$1" from "$MODELS/$NAME.pt" to "$RESULTS/figures/$1".{plane,bound,bleu}.{png,svg} -- picture_latents "$1"; }
picture_latents() {
  run nar latents "$OUT/bin" "${DECODE[@]}" --gen-subset test --batch-size 100 --remove-bpe --path "$MODELS/$NAME.pt" \
    --reference "$RAW/test.$TARGET" --sentence "$PICTURED" --output "$RESULTS/figures/$1"
}
do_latents() { where PICTURED picture; }

# What goes into teacher/
pack() {
  local folder=$OUT/teacher lines
  mapfile -t lines < <(commands learn_bpe && commands binarise "$OUT/bin" --trainpref "$BPE/train" "${SPLITS[@]}" && commands fit teacher)
  run mkdir -p "$folder"
  run cp "$MODELS"/teacher.{pt,curve.json} "$OUT/codes" "$OUT/nbest/nbest.gz" "$folder/"
  run cp "$OUT/bin/dict.$TARGET.txt" "$folder/dict.txt"
  run cp "$OUT/distilled/manifest.json" "$folder/distilled.json"
  run cp "$OUT/nbest/manifest.json" "$folder/nbest.json"
  run_to "$folder/train.$TARGET.gz" gzip -9nc "$OUT/distilled/train.$TARGET"
  run nar release pack "$folder" --made-from "${MADE_FROM[@]}" "${lines[@]/#/--command=}"
}
do_release() {
  do_nbest
  step pack from "$OUT/distilled/manifest.json" "$OUT/nbest/manifest.json" to "$OUT/teacher/manifest.json" -- pack
}
# What goes into students/: those that were trained, each with the commands that trained it and what it makes of the first
# sentences of the test set
do_publish() {
  local method NAMES=() FILES=() LINES=()
  for method in "${METHODS[@]}"; do each_model "$method" add_published; done
  step publish from "${FILES[@]}" to "$STUDENTS/manifest.json" -- publish
}
add_published() {
  local lines
  if [[ -n $SEEDED ]] || [[ -z ${DRY_RUN:-} && ! -e $MODELS/$NAME.pt ]]; then return; fi
  mapfile -t lines < <(DRY_RUN=1 fit "$METHOD" "$VARIANT" "$DATA" '' | grep -E '^(fairseq|nar)-?')
  NAMES+=("$NAME") FILES+=("$MODELS/$NAME".{pt,curve.json}) LINES+=("${lines[@]}")
}
publish() {
  local name lang
  run mkdir -p "$STUDENTS"
  run cp "${FILES[@]}" "$STUDENTS/"
  for lang in "${LANGS[@]}"; do run_to "$STUDENTS/sample.$lang" head -n 50 "$RAW/test.$lang"; done
  for name in "${NAMES[@]}"; do
    generate "$OUT/published/$name.txt" test --path "$MODELS/$name.pt"
    run_to "$STUDENTS/$name.txt" head -n 50 "$OUT/published/$name.txt"
  done
  run nar release pack "$STUDENTS" --made-from "${TAUGHT_BY[@]}" "${LINES[@]/#/--command=}"
}
main "$@"
