# shellcheck shell=bash disable=SC2034
# The teacher of WMT: Vaswani et al. 2017, base, 100,000 updates of 25,000 tokens; with TEACHER=big the big model, 300,000.
METHOD=teacher TOKENS=${TOKENS:-25000} BEST=${BEST:-5}
if [[ ${TEACHER:-base} == big ]]; then
  UPDATES=${UPDATES:-300000}
  FLAGS=(--arch transformer_vaswani_wmt_en_de_big --dropout 0.3 --lr 5e-4)
else
  UPDATES=${UPDATES:-100000}
  FLAGS=(--arch transformer_wmt_en_de --dropout 0.1 --lr 7e-4)
fi
FLAGS+=(--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --adam-betas "(0.9, 0.98)" --lr-scheduler inverse_sqrt
  --warmup-updates 4000 --warmup-init-lr 1e-7 --eval-bleu-args '{"beam": 1}' "${TINY[@]}")
DECODES=("ar-greedy --beam 1" "ar-beam4 ${SEARCH[*]}" "ar-beam5 --beam 5 --lenpen 0.6")
