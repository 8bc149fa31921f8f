#!/usr/bin/env bash
# The teacher, of the size of its students (Gu et al. 2018, released code): 5 + 5 layers of width 278 / 507, two heads,
# dropout 0.079, the learning rate of Vaswani et al. with 746 updates of warm-up (2.2e-3 at the highest).
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=teacher TOKENS=${TOKENS:-2048} UPDATES=${UPDATES:-200000} BEST=${BEST:-5}
FLAGS=(--arch transformer --encoder-layers 5 --decoder-layers 5 --encoder-embed-dim 278 --decoder-embed-dim 278
  --encoder-ffn-embed-dim 507 --decoder-ffn-embed-dim 507 --encoder-attention-heads 2 --decoder-attention-heads 2
  --dropout 0.079 --criterion label_smoothed_cross_entropy --adam-betas "(0.9, 0.98)" --adam-eps 1e-9
  --lr 2.2e-3 --lr-scheduler inverse_sqrt --warmup-updates 746 --eval-bleu-args '{"beam": 1}' "${TINY[@]}")
DECODES=("ar-greedy --beam 1" "ar-beam4 ${SEARCH[*]}" "ar-beam5 --beam 5")
begin "${BASH_SOURCE[0]}" learn "$@"
