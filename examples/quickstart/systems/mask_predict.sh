# shellcheck shell=bash
# Mask-predict on raw and on distilled data, with 1 and with 4 passes.

mask_predict_train() {
  train "$2" "$1" "${COMMON[@]}" --arch mask_predict_small --criterion token_length \
    --max-update 1600 --total-num-update 1600
}

mask_predict_rows() {
  row cmlm-raw-t1 raw --path "$OUT/models/mask_predict-raw.pt" --iter-decode-max-iter 0
  row cmlm-raw-t4 raw --path "$OUT/models/mask_predict-raw.pt" --iter-decode-max-iter 3
  row cmlm-t1 distilled --path "$OUT/models/mask_predict-distilled.pt" --iter-decode-max-iter 0
  row cmlm-t4 distilled --path "$OUT/models/mask_predict-distilled.pt" --iter-decode-max-iter 3
}
