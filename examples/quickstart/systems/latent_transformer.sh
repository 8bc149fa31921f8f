# shellcheck shell=bash
# LaNMT on raw and on distilled data: the prior's mean, and one delta step. Its gradients are not clipped, as its authors'
# are not: losses are sums over a sentence, so that every update would be cut.

latent_transformer_train() {
  train "$2" "$1" "${COMMON[@]}" --arch lanmt_small --criterion elbo_length --clip-norm 0 --budget-anneal-start 800 \
    --budget-anneal-end 1600 --max-update 1600 --total-num-update 1600
}

latent_transformer_rows() {
  local data id
  for data in raw distilled; do
    id=lanmt
    [[ $data == distilled ]] || id+=-$data
    row "$id-prior" "$data" --path "$OUT/models/latent_transformer-$data.pt" --iter-decode-max-iter 0
    row "$id-delta1" "$data" --path "$OUT/models/latent_transformer-$data.pt" --iter-decode-max-iter 1
  done
}
