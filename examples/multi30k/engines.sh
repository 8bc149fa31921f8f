#!/usr/bin/env bash
# Engines side by side; run.sh sources it. Step `engines`: the teacher by all of them and by CTranslate2. Step `speed`: models
# that learnt nothing, every hypothesis forced to N tokens, beside what CTranslate2 makes of autoregressive ones as large.

# row ID FLAGS...: to $ROWS, a system
row() { ROWS+=(--system "$1" "$(words "${@:2}")"); }

# clock_engines: the teacher by every engine and by CTranslate2, with a shortlist and without
clock_engines() {
  local table=$RESULTS/results/engines.json list=$OUT/shortlist.txt ROWS=()
  local plain=(--train raw --path "$MODELS/teacher.pt" "${DECODE[@]}" "${SEARCH[@]:2}")
  row ar-greedy-int8 "${plain[@]}" --beam 1 --engine int8
  row ct2-greedy "${plain[@]}" --beam 1 --engine ctranslate2
  row ct2-greedy-int8 "${plain[@]}" --beam 1 --engine ctranslate2-int8
  row ct2-greedy-shortlist "${plain[@]}" --beam 1 --engine ctranslate2-int8 --shortlist "$list"
  row ct2-beam5 "${plain[@]}" --beam 5 --engine ctranslate2
  row ct2-beam5-int8 "${plain[@]}" --beam 5 --engine ctranslate2-int8
  run nar align --input "$OUT/distilled/train".{"$SOURCE","$TARGET"} --dict "$OUT/bin"/dict.{"$SOURCE","$TARGET"}.txt --output "$list"
  run rm -f "$table"
  run nar benchmark "$OUT/bin" --reference "$RAW/test.$TARGET" --hypotheses "$RESULTS/hypotheses" --source-lang "$SOURCE" \
    --target-lang "$TARGET" --output "$table" --competitor ct2-greedy-int8 --batch-sizes 1 4 16 64 ${ALLOW_NOISE:+--allow-noise} \
    --teacher "$(words "${plain[@]}")" "${ROWS[@]}"
}

# wide WIDTH: models of this width have feed-forward blocks and heads in proportion
wide() {
  WIDE=(--encoder-embed-dim "$1" --encoder-ffn-embed-dim $((4 * $1)) --decoder-ffn-embed-dim $((4 * $1))
    --encoder-attention-heads $(($1 / 64)) --decoder-attention-heads $(($1 / 64)))
}
# sized SIZE: of a size (base, small, or a width), the folder of its dictionary, its presets' last part, and its transformer
sized() {
  ENGINES_AT=$OUT/engines/$1 WORDS_AT=$OUT/base/bin PRESET=wmt14_en_de WIDE=()
  case $1 in
    base) TRANSFORMER=("${BASE_TRANSFORMER[@]}") ;;
    small)
      use teacher
      WORDS_AT=$OUT/bin PRESET=small TRANSFORMER=("${BASE_TRANSFORMER[@]:0:4}" "${SMALL[@]}")
      ;;
    *) wide "$1" && ENGINES_AT=$OUT/engines/base TRANSFORMER=("${BASE_TRANSFORMER[@]}" "${WIDE[@]}" --decoder-embed-dim "$1") ;;
  esac
}
# untrained SIZE METHOD ENCODER-LAYERS DECODER-LAYERS: one update with a learning rate of 0; `ar` is fairseq's transformer
untrained() {
  local flags
  sized "$1"
  if [[ $2 == ar ]]; then
    flags=("${TRANSFORMER[@]}")
  else
    use "$2"
    flags=(--arch "${ARCH}_$PRESET" --criterion "$CRITERION" "${WIDE[@]}")
    case $2 in
      mask_predict) flags+=(--activation-fn relu) ;; # as all others have it
      latent_codes) flags+=("${BASE[@]}") ;;
      iterative_refinement | fertility_nat) if (($3 != $4)); then flags+=(--attend-top); fi ;;
      lanmt_refiner) flags+=(--latent-model "$MODELS/$1-$AFTER-$3-$4.pt") ;;
      blockwise_transformer) flags+=(--base-checkpoint "$MODELS/$1-ar-$3-$4.pt" --block-heads 8) ;;
    esac
  fi
  if [[ -n ${COUNTED:-} && $2 != ar ]]; then
    count_words "$BPE/train" "$WORDS_AT" "$WORDS_AT/counts"
    flags+=(--word-counts "$WORDS_AT/counts")
  fi
  if [[ $2 != lanmt_refiner && $2 != blockwise_transformer ]]; then flags+=(--share-all-embeddings --encoder-layers "$3" --decoder-layers "$4"); fi
  WEIGHTS=() RELEASED=()
  train "$1-$2-$3-$4" "$WORDS_AT" --task translation_nar "${DEVICE[@]}" --source-lang "$SOURCE" --target-lang "$TARGET" --seed 1 \
    --optimizer sgd --lr 0 --max-update 1 --max-tokens 256 --disable-validation --no-epoch-checkpoints --no-save-optimizer-state "${flags[@]}"
}
# untrained_models SIZE METHOD LAYERS...: the steps, and their models in $MADE
untrained_models() {
  local layers name parts after=()
  for layers in "${@:3}"; do
    name=$1-$2-$layers
    IFS=- read -ra parts <<<"$layers"
    if [[ $2 == lanmt_refiner ]]; then after=("$MODELS/$1-lanmt_continuous-$layers.pt"); fi
    if [[ $2 == blockwise_transformer ]]; then after=("$MODELS/$1-ar-$layers.pt"); fi
    step "untrained-$name" from "$WORDS_AT/dict.$TARGET.txt" "${after[@]}" to "$MODELS/$name.pt" -- untrained "$1" "$2" "${parts[@]}"
    MADE+=("$MODELS/$name.pt")
  done
}
# greedy_rows SIZE LIST NAME LAYERS...: autoregressive models by CTranslate2, with the shortlist LIST where it is named
greedy_rows() {
  local layers
  for layers in "${@:4}"; do
    row "ct2-$layers-int8$3" --train untrained --path "$MODELS/$1-ar-$layers.pt" "${DECODE[@]}" --engine ctranslate2-int8 \
      --beam 1 --min-len LENGTH --max-len-a 0 --max-len-b LENGTH ${2:+--shortlist "$2"}
  done
}
# pass_row SIZE LIST NAME METHOD LAYERS ENGINE: a method's least number of passes
pass_row() {
  use "$4"
  row "$ID${AFTER:+-score}-$5-$6$3" --train untrained --path "$MODELS/$1-$4-$5.pt" "${DECODE[@]}" --engine "$6" "${FORCED[@]}" \
    --iter-decode-max-iter "$((${#AFTER} > 0))" ${2:+--shortlist "$2"}
}
# clock_forced TABLE FLAGS...: of $ROWS, on texts of the size in use
clock_forced() {
  run nar benchmark "$ENGINES_AT/LENGTH/bin" --source-lang "$SOURCE" --target-lang "$TARGET" --output "$RESULTS/results/$1.json" \
    ${ALLOW_NOISE:+--allow-noise} "${ROWS[@]}" "${@:2}"
}
# clock_families TABLE SIZE "AUTOREGRESSIVE LAYERS..." LAYERS "ENGINES..." FLAGS...: every method; FLAGS at 25 tokens
clock_families() {
  local engine method layers engines ROWS=()
  sized "$2"
  read -ra layers <<<"$3"
  read -ra engines <<<"$5"
  greedy_rows "$2" '' '' "${layers[@]}"
  for method in "${PASSES_OF[@]}"; do
    for engine in "${engines[@]}"; do pass_row "$2" '' '' "$method" "$4" "$engine"; done
  done
  run rm -f "$RESULTS/results/$1.json"
  clock_forced "$1" --competitor "ct2-${layers[0]}-int8" --forced-length 25 "${@:6}"
  clock_forced "$1" --competitor "ct2-${layers[0]}-int8" --forced-length 60 200 --sentences 6
}
# clock_shortlists TABLE: 100 words drawn by chance for each source word, on either side; at batch 1, and in batches
clock_shortlists() {
  local list=$OUT/base/shortlist.txt layers ROWS=()
  sized base
  run nar align --random 1 --per-word 100 --dict "$WORDS_AT"/dict.{"$SOURCE","$TARGET"}.txt --output "$list"
  greedy_rows base '' '' 12-1 6-1
  greedy_rows base "$list" -shortlist 12-1 6-1
  for layers in 6-6 6-1; do
    pass_row base '' '' mask_predict "$layers" int8
    pass_row base "$list" -shortlist mask_predict "$layers" int8
  done
  run rm -f "$RESULTS/results/$1.json"
  clock_forced "$1" --competitor ct2-6-1-int8-shortlist --forced-length 25 --sentences 128 --repeats 2 --batch-sizes 1 4 16 64 128
  clock_forced "$1" --competitor ct2-6-1-int8-shortlist --forced-length 200
}
# clock_alignments TABLE: CTC with a decoder and as an encoder alone, at batch 1 and in batches; its canvas has twice the tokens
clock_alignments() {
  local layers engine ROWS=()
  sized base
  greedy_rows base '' '' 12-1 6-1 6-6
  for layers in 6-6 6-1 12-0; do
    for engine in eager int8 ${BFLOAT16:+bf16} compiled; do pass_row base '' '' ctc "$layers" "$engine"; done
  done
  run rm -f "$RESULTS/results/$1.json"
  clock_forced "$1" --competitor ct2-12-1-int8 --forced-length 25 --sentences 128 --repeats 1 --batch-sizes 1 16 128
  clock_forced "$1" --competitor ct2-12-1-int8 --forced-length 60 200 --sentences 6
}
# clock_widths TABLE WIDTH...: one pass and CTranslate2 by the width of the model, on one thread and on two
clock_widths() {
  local width threads engine
  run rm -f "$RESULTS/results/$1.json"
  for width in "${@:2}"; do
    for threads in 1 2; do
      local ROWS=()
      sized "$width"
      greedy_rows "$width" '' "-w$width-${threads}t" 6-6
      for engine in eager int8 compiled; do pass_row "$width" '' "-w$width-${threads}t" mask_predict 6-6 "$engine"; done
      clock_forced "$1" --competitor "ct2-6-6-int8-w$width-${threads}t" --forced-length 25 --threads "$threads"
    done
  done
}
# clock_acceptance TABLE: eight heads, and mask-predict in one pass as a drafter, if a call gave 2, 4 or 6 tokens, beside greedy
# search by the same engine; the rows say by bare ms how much of a call is not the networks'
clock_acceptance() {
  local engine tokens greedy ROWS=() FORCED=(--beam 1 --min-len LENGTH --max-len-a 0 --max-len-b LENGTH)
  sized base
  run rm -f "$RESULTS/results/$1.json"
  for engine in eager int8; do
    greedy=ar-greedy ROWS=()
    if [[ $engine == int8 ]]; then greedy+=-int8; fi
    row "$greedy" --train untrained --path "$MODELS/base-ar-6-6.pt" "${DECODE[@]}" --engine "$engine" "${FORCED[@]}"
    for tokens in 2 4 6; do
      row "bpd-k8-a$tokens-$engine" --train untrained --path "$MODELS/base-blockwise_transformer-6-6.pt" "${DECODE[@]}" \
        --engine "$engine" "${FORCED[@]}" --simulate-acceptance "$tokens"
      row "drafter-a$tokens-$engine" --train untrained --path "$MODELS/base-ar-6-6.pt" --drafter "$MODELS/base-mask_predict-6-6.pt" \
        "${DECODE[@]}" --engine "$engine" "${FORCED[@]}" --simulate-acceptance "$tokens"
    done
    greedy_rows base '' "-beside-$engine" 6-6
    clock_forced "$1" --competitor "$greedy" --forced-length 25 --sentences 64 --repeats 2 --batch-sizes 1 64
    clock_forced "$1" --competitor "$greedy" --forced-length 60 --sentences 6
  done
}
# clock_by NAME COMMAND...: the step of a table, from the models in $MADE
clock_by() {
  step "$1" from "${MADE[@]}" to "$RESULTS/results/$1.json" -- "$2" "$1" "${@:3}"
}

do_engines() {
  step engines from "$MODELS/teacher.pt" "$OUT/distilled/train.$TARGET" to "$RESULTS/results/engines.json" -- clock_engines
}
do_speed() {
  local n size width method MADE PASSES_OF=() DRAFTED=''
  for method in "${METHODS[@]}"; do
    use "$method"
    if [[ -n $ARCH && -n $COMPILES ]]; then PASSES_OF+=("$method"); fi
    if [[ $method == blockwise_transformer ]]; then DRAFTED=1; fi
  done
  if ((${#PASSES_OF[@]} == 0)) && [[ -z $DRAFTED ]]; then return; fi
  step base-dictionary from "$BPE/train.$SOURCE" to "$OUT/base/bin/dict.$TARGET.txt" -- \
    binarise "$OUT/base/bin" --trainpref "$BPE/train" --padding-factor 32000
  for size in base small; do
    sized "$size"
    for n in 25 60 200; do
      step "speed-$size-$n" from "$WORDS_AT/dict.$TARGET.txt" to "$ENGINES_AT/$n/bin/test.$PAIR.$TARGET.bin" -- \
        join "$n" "$ENGINES_AT/$n" "$WORDS_AT/dict.$TARGET.txt" --lines "$((n == 25 ? 128 : 12))"
    done
  done
  if [[ -n $DRAFTED ]]; then
    sized base
    MADE=()
    for method in ar blockwise_transformer mask_predict; do untrained_models base "$method" 6-6; done
    clock_by speed.blockwise clock_acceptance
  fi
  if ((${#PASSES_OF[@]} == 0)); then return; fi
  sized small
  MADE=()
  untrained_models small ar 4-4 12-1
  for method in "${PASSES_OF[@]}"; do untrained_models small "$method" 4-4; done
  clock_by speed.small clock_families small "4-4 12-1" 4-4 "eager int8 compiled" --sentences 64 --repeats 2 --batch-sizes 1 64
  sized base
  MADE=()
  untrained_models base ar 12-1 6-1 6-6
  for method in "${PASSES_OF[@]}"; do untrained_models base "$method" 6-6 6-1; done
  for n in 6-6 6-1; do clock_by "speed.base-$n" clock_families base "12-1 6-1 6-6" "$n" "eager int8${BFLOAT16:+ bf16}" --sentences 12; done
  if [[ " ${PASSES_OF[*]} " == *" mask_predict "* ]]; then clock_mask_predict; fi
  if [[ " ${PASSES_OF[*]} " == *" ctc "* ]]; then
    MADE=()
    untrained_models base ar 12-1 6-1 6-6
    untrained_models base ctc 6-6 6-1 12-0
    clock_by speed.ctc clock_alignments
  fi
}
# By shortlists and by widths, which all methods share
clock_mask_predict() {
  local size width
  clock_by speed.shortlists clock_shortlists
  MADE=()
  for width in 128 256 512 1024; do
    sized "$width"
    untrained_models "$width" ar 6-6
    untrained_models "$width" mask_predict 6-6
  done
  clock_by speed.width clock_widths 128 256 512 1024
}
