# shellcheck shell=bash disable=SC2034
# Mask-predict: Ghazvininejad et al. 2019, section 4.1 and the command of the release; five lengths.
FLAGS=(--arch "mask_predict_$SIZE" --criterion token_length --label-smoothing 0.1 --adam-betas "(0.9, 0.999)" --adam-eps 1e-6
  --weight-decay 0.01 --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000 --warmup-init-lr 1e-7
  --eval-bleu-args '{"iter_decode_max_iter": 3}')
DECODES=(
  "cmlm-t1 --iter-decode-max-iter 0 --iter-decode-with-beam 5"
  "cmlm-t4 --iter-decode-max-iter 3 --iter-decode-with-beam 5"
  "cmlm-t10 --iter-decode-max-iter 9 --iter-decode-with-beam 5"
)
