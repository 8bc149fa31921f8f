# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# Mask-predict on raw and on distilled data: 1, 2, 4 and 10 passes, with one and with two length candidates.

mask_predict_data=(raw distilled)
mask_predict_base=(--share-all-embeddings --arch mask_predict_wmt14_en_de --criterion token_length)
mask_predict_shown=(--iter-decode-max-iter 3)
mask_predict_best=(--iter-decode-max-iter 9 --iter-decode-with-beam 2)

mask_predict_train() {
  local epochs=50
  if [[ $2 == *-raw ]]; then epochs=25; fi # from there on it overfits
  train "$2" "$1" "${COMMON[@]}" --arch mask_predict_small --criterion token_length --dropout 0.1 --lr 2e-3 \
    --max-epoch "$epochs" --eval-bleu-args '{"iter_decode_max_iter": 3}' "${@:3}"
}

mask_predict_rows() {
  local data passes candidates id
  for data in raw distilled; do
    for passes in 1 2 4 10; do
      for candidates in 1 2; do
        id=cmlm-t$passes
        [[ $data == distilled ]] || id=cmlm-$data-t$passes
        ((candidates == 2)) || id+=-l1
        row "$id" "$data" --curve "$MODELS/mask_predict-$data.curve.json" --baseline beam4 \
          --path "$MODELS/mask_predict-$data.pt" --iter-decode-max-iter $((passes - 1)) \
          --iter-decode-with-beam "$candidates"
      done
    done
  done
}

# Is it the length? More of them, the teacher's choice among them, the reference's own.
mask_predict_gap() {
  local passes model=(--path "$MODELS/mask_predict-distilled.pt" --baseline beam4)
  for passes in 1 4 10; do
    row "cmlm-t$passes-gold" distilled "${model[@]}" --iter-decode-max-iter $((passes - 1)) --gold-target-len
  done
  model+=(--iter-decode-max-iter 9 --iter-decode-with-beam 5)
  row cmlm-t10-l5 distilled "${model[@]}"
  row cmlm-t10-l5-rescored distilled "${model[@]}" --iter-decode-with-external-reranker \
    --path "$MODELS/mask_predict-distilled.pt:$MODELS/teacher.pt"
}

mask_predict_timed() {
  local passes
  for passes in 1 4 10; do
    row "cmlm-t$passes-l1" "$2" --path "$1" --iter-decode-max-iter $((passes - 1)) --gold-target-len
  done
}
