#!/usr/bin/env bash
# What students begin as; run.sh sources it. Step `starts`: mask-predict as its teacher (warm) or with random weights (cold),
# from three seeds; LaNMT as its teacher, with an encoder that learns on (warm) or does not (frozen). All decode one length.

STARTS=(mask_predict-{warm,cold}-{1,2,3} latent_transformer-{warm,frozen}-1)
# begin METHOD-START-SEED: its settings
begin() {
  local parts WARM_START=1 ASKED_UPDATES=4000
  IFS=- read -ra parts <<<"$1"
  if [[ ${parts[1]} == cold ]]; then WARM_START=0; fi
  use "${parts[0]}" '' distilled "${parts[2]}"
  NAME=$1 ID+=-${parts[1]}
  FLAGS+=(--max-update "$UPDATES")
  if [[ ${parts[1]} == frozen ]]; then FLAGS+=(--freeze encoder); fi
}
train_start() { begin "$1" && train_on "$(binaries)" "$NAME" "${FLAGS[@]}"; }
# clock_starts METHOD
clock_starts() {
  local start ROWS=()
  for start in "${STARTS[@]}"; do
    if [[ $start == "$1"-* ]]; then
      begin "$start"
      if [[ $1 == mask_predict ]]; then add_rows "${WAYS[@]:0:1}" "${WAYS[@]:4:1}" "${WAYS[@]:6:1}"; else add_rows "${WAYS[@]:0:2}"; fi
    fi
  done
  clock_rows "$1.starts"
}
do_starts() {
  local start method TRAININGS=() CLOCK=(--repeats 1)
  local -A models=() curves=()
  for start in "${STARTS[@]}"; do
    begin "$start"
    if [[ " ${METHODS[*]} " != *" $METHOD "* ]]; then continue; fi
    TRAININGS+=("$(words step "train-$NAME" from "$(binaries)/train.$PAIR.$TARGET.bin" "$MODELS/teacher.pt" to "$MODELS/$NAME.pt" -- train_start "$start")")
    models[$METHOD]+="$MODELS/$NAME.pt " curves[$METHOD]+="$MODELS/$NAME.curve.json "
  done
  together "${TRAININGS[@]}"
  for method in "${!models[@]}"; do
    read -ra MADE <<<"${models[$method]}"
    step "$method.starts" from "${MADE[@]}" to "$RESULTS/results/$method.starts.json" -- clock_starts "$method"
    read -ra MADE <<<"${curves[$method]}"
    step "figure-$method.starts" from "${MADE[@]}" to "$RESULTS/figures/$method.starts".{png,svg} -- \
      nar curve "${MADE[@]}" --figure "$RESULTS/figures/$method.starts"
  done
}
