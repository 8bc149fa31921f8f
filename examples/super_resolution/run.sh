#!/usr/bin/env bash
# Images, the second task of blockwise parallel decoding (Stern, Shazeer & Uszkoreit 2018): a Transformer that writes pixels in
# raster order, and heads on it that write several a call. From the photographs that scikit-learn ships; nothing is downloaded.
#   bash examples/super_resolution/run.sh [STEP...]        --help names the steps
# RESTORE=super_resolution (8 by 8 pixels to 32 by 32), denoising or inpainting. IMAGES=DIR: images of one's own, of which the
# last by name is parted into a part that trains and one that tests; TEST_IMAGES=N: the last N test; WHOLE=1: each is one patch
# (then with TEST_IMAGES). CHANNELS=3: colours. SIDE, PATCHES: pixels of a side, patches that train.
SOURCE=low TARGET=high SIZE=${SIZE:-small} METHODS=${METHODS:-all} RESTORE=${RESTORE:-super_resolution}
SIDE=${SIDE:-32} CHANNELS=${CHANNELS:-1} IMAGES=${IMAGES:+$(realpath "$IMAGES")}
PIXELS=$((SIDE * SIDE * CHANNELS)) OUT=${OUT:-$(dirname "${BASH_SOURCE[0]}")/out/$RESTORE}
# An image has as many tokens as pixels, and none of them is <unk>.
ARCHIVES=() SEPARATE=1 SEARCH=(--beam 1 --min-len "$PIXELS" --max-len-a 0 --max-len-b "$PIXELS" --unkpen 1000)
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
STEPS=(download prepare teacher students decode score picture measure report)
COMMON=(--adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr-scheduler polynomial_decay --warmup-updates 300
  --no-epoch-checkpoints --save-interval-updates 1000 --validate-interval-updates 1000 --keep-interval-updates 1)
METRIC=loss DETOKENIZE=() LASTS=("$((2 * (PIXELS + 1)))")
# Two patches an update, as in the other recipes that one core trains: two hours of it, a task beside the paper's a half.
if [[ $RESTORE == super_resolution ]]; then IMAGE_UPDATES=4000; else IMAGE_UPDATES=1200; fi
[[ " super_resolution denoising inpainting " == *" $RESTORE "* ]] || fail "RESTORE is super_resolution, denoising or inpainting, not $RESTORE"

all_methods() { echo blockwise_transformer; }
id_of() { echo "$ID-$1"; }

do_download() {
  step images ${IMAGES:+from "$IMAGES"} to "$RAW"/{train,valid,test}.{low,high} "$RAW"/dict.{low,high}.txt "$RAW/images.json" -- \
    nar images cut --output "$RAW" --restore "$RESTORE" --side "$SIDE" --channels "$CHANNELS" --patches "${PATCHES:-10000}" \
    --test-images "${TEST_IMAGES:-0}" ${WHOLE:+--whole} ${IMAGES:+--images "$IMAGES"}
}
do_prepare() {
  step binarise from "$RAW"/{train,valid,test}.{low,high} "$RAW"/dict.{low,high}.txt \
    to "$OUT/bin/dict.high.txt" "$OUT/bin/train.$PAIR.high.bin" -- \
    binarise "$OUT/bin" --trainpref "$RAW/train" --validpref "$RAW/valid" --testpref "$RAW/test" \
    --srcdict "$RAW/dict.low.txt" --tgtdict "$RAW/dict.high.txt"
}
do_distil() { fail "images are not distilled (Stern et al. distil translations alone)"; }

# named METHOD: to $FILES, the hypotheses of its models, each in every way
named() { each_model "$1" add_hypotheses; }
add_hypotheses() {
  local way
  for way in "${WAYS[@]}"; do FILES+=("$OUT/hypotheses/$(id_of "${way%% *}").txt"); done
}
hypotheses() {
  local method
  FILES=()
  for method in teacher "${METHODS[@]}"; do named "$method"; done
}
do_score() {
  local FILES
  hypotheses
  run nar images score "$RAW" --hypotheses "${FILES[@]}"
}
do_picture() {
  local FILES file
  hypotheses
  for file in "${FILES[@]}"; do
    local name=${file##*/}
    name=$RESULTS/figures/${name%.txt}.png
    step "picture-${file##*/}" from "$RAW/test.high" "$file" to "$name" -- nar images picture "$RAW" --hypotheses "$file" --output "$name"
  done
}
# Times, calls and scores as rows: over greedy decoding with its cache, at batch 1
do_measure() {
  local method FILES NEEDED=() ENGINES=('') ROWS=()
  hypotheses
  for method in teacher "${METHODS[@]}"; do
    each_model "$method" add_model plain
    each_model "$method" add_ways
  done
  step measure from "${NEEDED[@]}" "${FILES[@]}" to "$RESULTS/results.json" -- clock_images
}
add_ways() { add_rows "${WAYS[@]}"; }
clock_images() {
  run rm -f "$RESULTS/results.json"
  run nar benchmark "$OUT/bin" --forced-length "$PIXELS" ${SENTENCES:+--sentences "$SENTENCES"} "${CLOCK[@]}" \
    --source-lang "$SOURCE" --target-lang "$TARGET" ${ALLOW_NOISE:+--allow-noise} --output "$RESULTS/results.json" "${ROWS[@]}"
  run nar images score "$RAW" --hypotheses "${FILES[@]}" --results "$RESULTS/results.json"
}
main "$@"
