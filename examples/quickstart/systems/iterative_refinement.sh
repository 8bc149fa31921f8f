# shellcheck shell=bash
# Iterative refinement on raw and on distilled data: the first pass, and as many as a sentence needs.

iterative_refinement_train() {
  train "$2" "$1" "${COMMON[@]}" --arch iterative_refinement_small --criterion token_length \
    --max-update 1600 --total-num-update 1600
}

iterative_refinement_rows() {
  local data id
  for data in raw distilled; do
    id=lee
    [[ $data == distilled ]] || id+=-$data
    row "$id-k1" "$data" --path "$OUT/models/iterative_refinement-$data.pt" --iter-decode-max-iter 0
    row "$id-adaptive" "$data" --path "$OUT/models/iterative_refinement-$data.pt" --iter-decode-max-iter 9
  done
}
