#!/usr/bin/env bash
# EM training (Sun & Yang 2020); recipe.sh sources it. Step `em`: from plain distillation (round 0) on, the student scores its
# teacher's n best answers, of which the next teacher learns those that both find likely, and the student its next teacher's
# first answers; beside it the control, which has as many updates on the data of round 0. Step `em_measure`: rows of both.
# EM_ROUNDS at most, fewer where one is no better; NBEST answers; ALPHA weighs the teacher (0: the student alone, as in the
# release); SELECT_NORM=len compares by the token; FROM_SCRATCH=1: no round begins with the weights of the one before;
# EM_STUDENTS: methods (those of METHODS that set ONE_PASS); EM_UPDATES: of a further training.
EM=$OUT/em EM_ROUNDS=${EM_ROUNDS:-2} NBEST=${NBEST:-20} ALPHA=${ALPHA:-1} SELECT_NORM=${SELECT_NORM:-none}

# What the names of a round's files are: round METHOD T
round() {
  AT=$EM/$1/$2 BEFORE=$EM/$1/$(($2 - 1))
  TAUGHT=$MODELS/$1-em$2.pt TEACHER_AT=$MODELS/$1-em$2-teacher.pt CONTROL=$MODELS/$1-control$2.pt ANSWERS=$AT/answers
  if (($2 == 0)); then TAUGHT=$MODELS/$1-distilled.pt TEACHER_AT=$MODELS/teacher.pt CONTROL=$TAUGHT ANSWERS=$OUT/nbest; fi
}
# Of a training of the settings in use: the last value of a flag
asked() {
  local word value='' is_next=''
  for word in "${COMMON[@]}" "${SHARED[@]}" "${FLAGS[@]}"; do
    if [[ -n $is_next ]]; then value=$word; fi
    if [[ $word == "$1" ]]; then is_next=1; else is_next=''; fi
  done
  echo "$value"
}
# go_on METHOD NAME DATA MODEL: a third of a method's updates at half its rate, from the weights of MODEL; or all of them
go_on() {
  local WARM_START=$WARM_START updates epochs flags=()
  if [[ -z ${FROM_SCRATCH:-} ]]; then WARM_START=0; fi
  use "$1"
  updates=${UPDATES:-$(asked --max-update)} epochs=$(asked --max-epoch)
  updates=${updates:-0} epochs=${epochs:-0}
  if [[ -z ${FROM_SCRATCH:-} ]]; then
    updates=${EM_UPDATES:-$((updates / 3))} epochs=$((epochs / 3))
    flags=(--lr "$(awk -v rate="$(asked --lr)" 'BEGIN { print rate / 2 }')" --finetune-from-model "$4")
    if [[ -n $(asked --total-num-update) ]]; then flags+=(--total-num-update "$updates"); fi
    if ((epochs > 0)); then flags+=(--max-epoch "$epochs"); fi
  fi
  if ((updates > 0)); then flags+=(--max-update "$updates"); fi
  train_on "$3" "$2" "${FLAGS[@]}" "${flags[@]}" "${FURTHER[@]}"
}
# The teacher's n best answers to the training text
answers_of() { answer "$1" "$2" --beam "$NBEST" --nbest "$NBEST" --max-tokens 2000; }
first_answers() { answers_of "$MODELS/teacher.pt" "$OUT/nbest"; }
do_nbest() {
  step nbest from "$MODELS/teacher.pt" "$BPE/train".{"$SOURCE","$TARGET"} to "$OUT/nbest"/{nbest.gz,manifest.json} -- first_answers
}
pairs() {
  run nar em candidates --nbest "$1/nbest.gz" --source-text "$BPE/train.$SOURCE" --source-lang "$SOURCE" --target-lang "$TARGET" \
    --output "$1/pairs"
  binarise "$1/bin" --trainpref "$1/pairs" "${KNOWN_WORDS[@]}"
}
# scores FILE DATA SUBSET STUDENT
scores() {
  local shards=()
  if ((GPUS > 0)); then shards=(--gpus "$GPUS" --jobs "$GPUS" --shards "$((4 * GPUS))"); fi
  run nar em score --data "$2" --subset "$3" --student "$4" --source-lang "$SOURCE" --target-lang "$TARGET" --output "$1" \
    "${shards[@]}" -- "${DEVICE[@]}" "${HALF[@]}"
}
# select_answers METHOD T TARGETS: the next teacher's training text; TARGETS stay where no answer will do
select_answers() {
  round "$1" "$2"
  run nar em select --nbest "$ANSWERS/nbest.gz" --scores "$AT/scores.gz" --lenpen "$(lenpen)" --alpha "$ALPHA" \
    --select-norm "$SELECT_NORM" --source-text "$BPE/train.$SOURCE" --target-text "$3" --source-lang "$SOURCE" \
    --target-lang "$TARGET" --output "$AT/selected"
}
lenpen() {
  local word value=1 is_next=''
  for word in "${SEARCH[@]}"; do
    if [[ -n $is_next ]]; then value=$word; fi
    if [[ $word == --lenpen ]]; then is_next=1; else is_next=''; fi
  done
  echo "$value"
}
# The plain text of the valid set: in $RAW, but where it was cut from the training text
plain_valid() { run nar prepare detokenize --input "$TOKENIZED/valid.$TARGET" --lang "$TARGET" --output "$RAW/valid.$TARGET"; }
# reach METHOD T: what the models of a round make of the valid set
reach() {
  local who said=() made=() lines=()
  round "$1" "$2"
  use "$1"
  generate "$AT/teacher.txt" valid --path "$TEACHER_AT" "${SEARCH[@]}"
  generate "$AT/student.txt" valid --path "$TAUGHT" "${ONE_PASS[@]}"
  if (($2 > 0)); then generate "$AT/control.txt" valid --path "$CONTROL" "${ONE_PASS[@]}"; fi
  scores "$AT/valid.gz" "$OUT/bin" valid "$TAUGHT"
  for who in teacher student control; do
    if [[ $who != control ]] || (($2 > 0)); then said+=(--hypotheses "$who" "$AT/$who.txt"); fi
  done
  made=("$TEACHER_AT" "$TAUGHT" "$ANSWERS/nbest.gz" "$AT/scores.gz" "$OUT/bin/dict.$SOURCE.txt" "$OUT/bin/dict.$TARGET.txt")
  if (($2 > 0)); then
    mapfile -t lines < <(commands trainings "$1" "$2" | grep -E '^(fairseq|nar)-?')
  fi
  run nar em measure --round "$2" --selection "$AT/selected/manifest.json" --valid-scores "$AT/valid.gz" \
    --reference "$RAW/valid.$TARGET" "${said[@]}" "${SCORE[@]}" --made-of "${made[@]}" --seed "${SEED:-1}" \
    "${lines[@]/#/--command=}" --output "$AT/round.json"
}
# The trainings of a round
trainings() {
  local T=$2
  teach "$1" "$T" && learn "$1" "$T" && stay "$1" "$T"
}
teach() { round "$1" "$2" && go_on teacher "$1-em$2-teacher" "$AT/bin-teacher" "$(round "$1" $(($2 - 1)) && echo "$TEACHER_AT")"; }
learn() { round "$1" "$2" && go_on "$1" "$1-em$2" "$AT/bin" "$(round "$1" $(($2 - 1)) && echo "$TAUGHT")"; }
stay() { round "$1" "$2" && go_on "$1" "$1-control$2" "$OUT/bin-distilled" "$(round "$1" $(($2 - 1)) && echo "$CONTROL")"; }

# further METHOD T: the models of a round after the first
further() {
  local last name=$1-em$2 train=train.$PAIR.$TARGET.bin learnt=()
  round "$1" $(($2 - 1))
  last=("$TEACHER_AT" "$TAUGHT" "$CONTROL")
  round "$1" "$2"
  step "data-$name-teacher" from "$BEFORE/selected"/{train."$SOURCE",train."$TARGET",manifest.json} to "$AT/bin-teacher/$train" -- \
    binarise "$AT/bin-teacher" --trainpref "$BEFORE/selected/train" "${SPLITS[@]}" "${KNOWN_WORDS[@]}"
  step "train-$name-teacher" from "$AT/bin-teacher/$train" "${last[0]}" to "$TEACHER_AT" -- teach "$1" "$2"
  step "answers-$name" from "$TEACHER_AT" "$BPE/train".{"$SOURCE","$TARGET"} \
    to "$ANSWERS"/{train."$SOURCE",train."$TARGET",nbest.gz,manifest.json} -- answers_of "$TEACHER_AT" "$ANSWERS"
  step "data-$name" from "$ANSWERS"/{train."$SOURCE",train."$TARGET",manifest.json} to "$AT/bin/$train" -- \
    binarise "$AT/bin" --trainpref "$ANSWERS/train" "${SPLITS[@]}" "${KNOWN_WORDS[@]}"
  learnt=("$(words step "train-$name" from "$AT/bin/$train" "${last[1]}" to "$TAUGHT" -- learn "$1" "$2")"
    "$(words step "train-$1-control$2" from "$OUT/bin-distilled/$train" "${last[2]}" to "$CONTROL" -- stay "$1" "$2")")
  together "${learnt[@]}"
}
# judge METHOD T: what a round's student selects, and what the round reached
judge() {
  local name=$1-em$2 targets=$OUT/distilled/train.$TARGET list=nbest
  round "$1" "$2"
  if (($2 > 0)); then targets=$ANSWERS/train.$TARGET list=$name; fi
  step "pairs-$list" from "$ANSWERS"/{nbest.gz,manifest.json} to "$ANSWERS/pairs".{"$SOURCE","$TARGET"} \
    "$ANSWERS/bin/train.$PAIR.$TARGET.bin" -- pairs "$ANSWERS"
  step "score-$name" from "$ANSWERS/bin/train.$PAIR.$TARGET.bin" "$TAUGHT" to "$AT/scores.gz" -- \
    scores "$AT/scores.gz" "$ANSWERS/bin" train "$TAUGHT"
  step "select-$name" from "$AT/scores.gz" "$ANSWERS/nbest.gz" "$targets" to \
    "$AT/selected"/{train."$SOURCE",train."$TARGET",manifest.json} -- select_answers "$1" "$2" "$targets"
  step "reach-$name" from "$TEACHER_AT" "$TAUGHT" "$CONTROL" "$AT/selected/manifest.json" to "$AT/round.json" -- reach "$1" "$2"
}
# is_worth ROUND.json...: whether another round is; in a dry run all are
is_worth() {
  local status=0
  run nar em goes-on "$@" || status=$?
  ((status < 2)) || exit "$status"
  return "$status"
}
# em_loop METHOD
em_loop() {
  local t rounds=() figure=$RESULTS/figures/em.$1
  for ((t = 0; t <= EM_ROUNDS; t++)); do
    if ((t > 0)); then further "$1" "$t"; fi
    judge "$1" "$t"
    rounds+=("$EM/$1/$t/round.json")
    if ((t == EM_ROUNDS)) || ! is_worth "${rounds[@]}"; then break; fi
  done
  step "em-$1" from "${rounds[@]}" to "$RESULTS/em.$1.json" "$figure".{bleu,ncmm}.{png,svg} -- \
    run nar em report "${rounds[@]}" --name "$1" --output "$RESULTS/em.$1.json" --figure "$figure"
  where_em "$1" "$((${#rounds[@]} - 1))" decode_em
}
add_student() { STUDENTS_OF_EM+=("$1"); }
students_of_em() {
  read -ra STUDENTS_OF_EM <<<"${EM_STUDENTS:-}"
  if ((${#STUDENTS_OF_EM[@]} == 0)); then where EMS add_student; fi
}
do_em() {
  local method STUDENTS_OF_EM=()
  ((MACHINES == 1)) || fail "the step em is for one machine"
  students_of_em
  do_nbest
  if [[ -n ${HOLD_OUT:-} ]]; then step plain-valid from "$TOKENIZED/valid.$TARGET" to "$RAW/valid.$TARGET" -- plain_valid; fi
  for method in "${STUDENTS_OF_EM[@]}"; do em_loop "$method"; done
}

# where_em METHOD T COMMAND...: COMMAND with the settings of the last student and of its control
where_em() {
  local model
  if (($2 == 0)); then return; fi
  for model in "em$2" "control$2"; do
    use "$1"
    NAME=$1-$model ID=${EM_ID:-em-$ID} WAYS=("${EMS[@]}")
    if [[ $model == control* ]]; then ID+=-control; fi
    if ((${#WAYS[@]} == 0)); then WAYS=("plain $(words "${ONE_PASS[@]}")"); fi
    "${@:3}"
  done
}
decode_em() { local IDS='' KNOWN='' && decode_model; }
# reached METHOD: the last round that there is
reached() {
  local t=$EM_ROUNDS
  while [[ -z ${DRY_RUN:-} && ! -e $MODELS/$1-control$t.pt ]] && ((t > 0)); do t=$((t - 1)); done
  echo "$t"
}
# In $LOOPS, "METHOD T" for every student
last_loops() {
  local method
  students_of_em
  for method in "${STUDENTS_OF_EM[@]}"; do LOOPS+=("$method $(reached "$method")"); done
}
add_em() { add_rows "${WAYS[@]}" && MADE+=("$MODELS/$NAME.pt"); }
# each_loop COMMAND "METHOD T"...: COMMAND for the last models of each loop
each_loop() {
  local loop words
  for loop in "${@:2}"; do
    read -ra words <<<"$loop"
    where_em "${words[@]}" "$1"
  done
}
clock_em() { local MADE=() ROWS=() && each_loop add_em "$@" && clock_rows em; }
do_em_measure() {
  local LOOPS=() STUDENTS_OF_EM=() MADE=() ROWS=()
  last_loops
  each_loop add_em "${LOOPS[@]}"
  step em-measure from "$MODELS/teacher.pt" "${MADE[@]}" to "$RESULTS/results/em.json" -- clock_em "${LOOPS[@]}"
}
