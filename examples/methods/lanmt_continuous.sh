# shellcheck shell=bash disable=SC2034
# Latents on target positions: Lee, Shu & Cho 2020 and its release; the prior's mean and one delta step. ANNEAL: the updates
# between which the budget of free bits falls; LENGTH_BONUS: the release decodes longer targets on some corpora.
read -ra ANNEAL <<<"${ANNEAL:-$((UPDATES / 2)) $UPDATES}"
FLAGS=(--arch "lanmt_continuous_$SIZE" --criterion elbo_length --label-smoothing 0.1 --adam-betas "(0.9, 0.98)"
  --adam-eps 1e-9 --lr 1.4e-3 --lr-scheduler inverse_sqrt --warmup-updates 4000
  --budget-anneal-start "${ANNEAL[0]}" --budget-anneal-end "${ANNEAL[1]}" --length-bonus "${LENGTH_BONUS:-0}"
  --eval-bleu-args '{"iter_decode_max_iter": 1}')
DECODES=(
  "cont-prior --iter-decode-max-iter 0"
  "cont-delta --iter-decode-max-iter 1"
)
