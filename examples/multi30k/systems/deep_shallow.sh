# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# An autoregressive model with a deep encoder and one decoder layer, on the same distilled data, decoded greedily.
# Kasai, Pappas, Peng, Cross & Smith 2021, "Deep Encoder, Shallow Decoder", arXiv 2006.10369.

deep_shallow_data=(distilled)
deep_shallow_layers=(--encoder-layers 12 --decoder-layers 1)
deep_shallow_base=(--share-all-embeddings "${AUTOREGRESSIVE[@]:0:4}" "${BASE[@]}" "${deep_shallow_layers[@]}")
deep_shallow_best=(--beam 1)

deep_shallow_train() {
  train "$2" "$1" "${COMMON[@]}" "${AUTOREGRESSIVE[@]}" "${SMALL[@]}" "${deep_shallow_layers[@]}" --dropout 0.1 \
    --lr 2e-3 --max-epoch 15 "${@:3}"
}

deep_shallow_rows() {
  row ar-deep-shallow distilled --curve "$MODELS/deep_shallow-distilled.curve.json" --baseline greedy \
    --path "$MODELS/deep_shallow-distilled.pt" --beam 1
}

deep_shallow_timed() {
  row ar-deep-shallow "$2" --baseline greedy --path "$1" --beam 1 --min-len "$3" --max-len-a 0 --max-len-b "$3"
}
