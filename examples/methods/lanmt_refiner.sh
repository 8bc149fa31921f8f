# shellcheck shell=bash disable=SC2034
# A network that refines the latents of 5_lanmt_continuous.sh, by a score or by an energy (KIND): Lee, Shu & Cho 2020 and its
# release; one step, and a search over samples and lengths that the teacher judges.
SHARED=()
LATENT=$MODELS/lanmt_continuous.pt
if [[ $DATA == raw ]]; then LATENT=$MODELS/lanmt_continuous-raw.pt; fi
FLAGS=(--arch "lanmt_refiner_$SIZE" --criterion score_matching --refiner "$KIND" --latent-model "$LATENT"
  --rollout-step-size "$STEP_SIZE" --adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 1.4e-3 --lr-scheduler inverse_sqrt
  --warmup-updates 4000 --eval-bleu-args '{"iter_decode_max_iter": 1}')
STEP="--iter-decode-max-iter 1 --latent-step-size $STEP_SIZE"
DECODES=("cont-energy $STEP")
if [[ $KIND == score ]]; then
  DECODES=(
    "cont-score $STEP"
    "cont-search $STEP --decode-samples 10 --iter-decode-with-beam 5 --iter-decode-with-external-reranker"
  )
fi
