# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# Latents on target positions, on distilled data: the prior's mean, 1, 2 and 4 delta steps. lanmt_refiner.sh refines them.

lanmt_continuous_data=(distilled)
lanmt_continuous_base=(--share-all-embeddings --arch lanmt_continuous_wmt14_en_de --criterion elbo_length)
lanmt_continuous_best=(--iter-decode-max-iter 2)

lanmt_continuous_train() {
  train_latent lanmt_continuous_small "$@"
}

lanmt_continuous_rows() {
  local steps model=(--curve "$MODELS/lanmt_continuous-distilled.curve.json" --baseline beam3
    --path "$MODELS/lanmt_continuous-distilled.pt" --stop-rule none)
  row cont-prior distilled "${model[@]}" --iter-decode-max-iter 0
  row cont-delta distilled "${model[@]}" --iter-decode-max-iter 1
  for steps in 2 4; do row "cont-delta$steps" distilled "${model[@]}" --iter-decode-max-iter "$steps"; done
}

lanmt_continuous_gap() { gap_latent cont lanmt_continuous; }

lanmt_continuous_timed() { time_latent cont "$@"; }
