# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# Iterative refinement on distilled data: 1, 2, 5 and 10 passes, and as many as a sentence needs, at most 20: until two say the
# same, or until a later one of the last six has the words of the oldest (a window chosen on the valid set).

iterative_refinement_data=(distilled)
iterative_refinement_base=(--share-all-embeddings --arch iterative_refinement_wmt14_en_de --criterion token_length)
iterative_refinement_shown=(--iter-decode-max-iter 19)
iterative_refinement_best=(--iter-decode-max-iter 9 --stop-rule none)

iterative_refinement_train() {
  train "$2" "$1" "${COMMON[@]}" --arch iterative_refinement_small --criterion token_length --dropout 0.1 --lr 2e-3 \
    "${DEVICE[@]/--cpu/--cpu-autocast}" --max-epoch 15 --eval-bleu-args '{"iter_decode_max_iter": 4}' "${@:3}"
}

iterative_refinement_rows() {
  local passes model=(--curve "$MODELS/iterative_refinement-distilled.curve.json" --baseline beam4
    --path "$MODELS/iterative_refinement-distilled.pt")
  for passes in 1 2 5 10; do
    row "lee-k$passes" distilled "${model[@]}" --iter-decode-max-iter $((passes - 1)) --stop-rule none
  done
  row lee-adaptive distilled "${model[@]}" --iter-decode-max-iter 19
  row lee-adaptive6 distilled "${model[@]}" --iter-decode-max-iter 19 --stop-rule jaccard --stop-window 6
}

# Other ways to stop and to guess: the released rule, the best stop of all, several lengths, samples, the reference's length.
iterative_refinement_gap() {
  local model=(--baseline beam4 --path "$MODELS/iterative_refinement-distilled.pt" --iter-decode-max-iter 19)
  row lee-jaccard5 distilled "${model[@]}" --stop-rule jaccard --stop-window 5
  row lee-oracle5 distilled "${model[@]}" --stop-rule oracle --stop-window 5
  row lee-adaptive-collapsed distilled "${model[@]}" --collapse-repeats
  row lee-adaptive-l5 distilled "${model[@]}" --iter-decode-with-beam 5
  row lee-adaptive-gold distilled "${model[@]}" --gold-target-len
  row lee-k10-samples4 distilled "${model[@]:0:4}" --iter-decode-max-iter 9 --stop-rule none --decode-samples 4
}

iterative_refinement_timed() {
  local passes
  for passes in 1 5 10; do
    row "lee-k$passes" "$2" --path "$1" --iter-decode-max-iter $((passes - 1)) --stop-rule none --gold-target-len
  done
}
