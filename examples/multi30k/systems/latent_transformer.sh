# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# LaNMT on distilled data: the prior's mean, 1, 2 and 4 delta steps, a latent search by its own score and by the teacher's.

latent_transformer_data=(distilled)
latent_transformer_base=(--share-all-embeddings --arch lanmt_wmt14_en_de --criterion elbo_length)
latent_transformer_pictured=2
latent_transformer_shown=(--iter-decode-max-iter 4)
latent_transformer_best=(--iter-decode-max-iter 2)

# With free bits, which fall to none in the second half; then an epoch without any, from the average so far.
latent_transformer_train() {
  train_latent lanmt_small "$@"
}

latent_transformer_rows() {
  local steps model=(--curve "$MODELS/latent_transformer-distilled.curve.json" --baseline beam3)
  for steps in 1 2 4; do
    if ((steps == 1)); then
      row lanmt-prior distilled "${model[@]}" --path "$MODELS/latent_transformer-distilled.pt" --iter-decode-max-iter 0
    fi
    row "lanmt-delta$steps" distilled "${model[@]}" --path "$MODELS/latent_transformer-distilled.pt" \
      --iter-decode-max-iter "$steps" --stop-rule none
  done
  model+=(--iter-decode-max-iter 1 --decode-samples 50)
  row lanmt-search-own distilled "${model[@]}" --path "$MODELS/latent_transformer-distilled.pt"
  row lanmt-search distilled "${model[@]}" --iter-decode-with-external-reranker \
    --path "$MODELS/latent_transformer-distilled.pt:$MODELS/teacher.pt"
}

latent_transformer_gap() { gap_latent lanmt latent_transformer; }

latent_transformer_timed() { time_latent lanmt "$@"; }
