# shellcheck shell=bash disable=SC2034
# Iterative refinement: Lee et al. 2018, released code: a learning rate that falls in a line for 250,000 updates, no label
# smoothing, one checkpoint; decoded without repeats, to the release's fixed point. The release trains until it is stopped.
FLAGS=(--arch "iterative_refinement_$SIZE" --criterion token_length --adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 3e-4
  --lr-scheduler polynomial_decay --end-learning-rate 1e-5 --total-num-update 250000
  --eval-bleu-args '{"iter_decode_max_iter": 4}')
DECODES=(
  "lee-k1 --stop-rule none --iter-decode-max-iter 0 --collapse-repeats"
  "lee-k2 --stop-rule none --iter-decode-max-iter 1 --collapse-repeats"
  "lee-k5 --stop-rule none --iter-decode-max-iter 4 --collapse-repeats"
  "lee-k10 --stop-rule none --iter-decode-max-iter 9 --collapse-repeats"
  "lee-adaptive --stop-rule jaccard --stop-window 5 --iter-decode-max-iter 19 --collapse-repeats"
)
