# shellcheck shell=bash disable=SC2034
# LaNMT: Shu et al. 2020 and its release: free bits whose budget falls in the second half, then updates without any; the
# prior's mean, one delta step, and 50 samples of latents, which the model or the teacher judges.
FLAGS=(--arch "latent_transformer_$SIZE" --criterion elbo_length --label-smoothing 0.1 --adam-betas "(0.9, 0.98)" --adam-eps 1e-4
  --lr 1.4e-3 --lr-scheduler inverse_sqrt --warmup-updates 4000
  --budget-anneal-start $((UPDATES / 2)) --budget-anneal-end "$UPDATES" --eval-bleu-args '{"iter_decode_max_iter": 1}')
FINETUNE=("${FLAGS[@]}" --budget 0 --lr 1e-4 --lr-scheduler fixed --warmup-updates 0)
DECODES=(
  "lanmt-prior --iter-decode-max-iter 0"
  "lanmt-delta1 --iter-decode-max-iter 1"
  "lanmt-search-own --iter-decode-max-iter 1 --decode-samples 50 --rescore-norm sum"
  "lanmt-search --iter-decode-max-iter 1 --decode-samples 50 --rescore-norm sum --iter-decode-with-external-reranker"
)
