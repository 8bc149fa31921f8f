# shellcheck shell=bash disable=SC2034  # variables are for the recipe
# Networks that refine the latents of lanmt_continuous, by a score and by an energy: 1, 2 and 4 steps, and a search over
# samples and lengths that the teacher judges.

lanmt_refiner_data=(distilled)
lanmt_refiner_after=lanmt_continuous # which is trained first: it stands on it
lanmt_refiner_beside=lanmt_refiner_energy
lanmt_refiner_seeds=(2 3) # score and energy are close
lanmt_refiner_base=(--arch lanmt_refiner_wmt14_en_de --criterion score_matching
  --latent-model "$MODELS/base-lanmt_continuous.pt")
lanmt_refiner_pictured=2
lanmt_refiner_shown=(--iter-decode-max-iter 4)

lanmt_refiner_train() {
  train_refiner score "$@"
}

lanmt_refiner_rows() {
  local curve=(--curve "$MODELS/lanmt_refiner-distilled.curve.json" --baseline beam3)
  lanmt_refiner_steps ''
  row cont-search distilled "${curve[@]}" --iter-decode-max-iter 1 --decode-samples 10 --iter-decode-with-beam 5 \
    --iter-decode-with-external-reranker --path "$MODELS/lanmt_refiner-distilled.pt:$MODELS/teacher.pt"
}

# Is it chance which of the two is better?
lanmt_refiner_gap() {
  local seed
  for seed in "${lanmt_refiner_seeds[@]}"; do lanmt_refiner_steps "-seed$seed"; done
}

# lanmt_refiner_steps {-seedN | ''}: rows of 1, 2 and 4 steps
lanmt_refiner_steps() {
  local kind steps id model
  for kind in energy score; do
    model=lanmt_refiner-distilled$1
    [[ $kind == score ]] || model=lanmt_refiner_energy-distilled$1
    for steps in 1 2 4; do
      id=cont-$kind$steps
      row "${id%1}$1" distilled --curve "$MODELS/$model.curve.json" --baseline beam3 --path "$MODELS/$model.pt" \
        --iter-decode-max-iter "$steps"
    done
  done
}

lanmt_refiner_timed() {
  local steps
  for steps in 1 4; do row "cont-score$steps" "$2" --path "$1" --iter-decode-max-iter "$steps" --gold-target-len; done
}
