#!/usr/bin/env bash
# The teacher: transformer_iwslt_de_en of fairseq, trained as its README says.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=teacher TOKENS=${TOKENS:-4096} UPDATES=${UPDATES:-100000} BEST=${BEST:-5}
FLAGS=(--arch transformer_iwslt_de_en --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --dropout 0.3
  --adam-betas "(0.9, 0.98)" --weight-decay 1e-4 --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 4000
  --eval-bleu-args '{"beam": 1}' "${TINY[@]}")
DECODES=("ar-greedy --beam 1" "ar-beam5 ${SEARCH[*]}")
begin "${BASH_SOURCE[0]}" learn "$@"
