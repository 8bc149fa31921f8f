# Blockwise parallel decoding: Stern, Shazeer & Uszkoreit 2018; eight heads on blockwise_base.sh, which learn with it or, on the
# frozen one, by themselves; decoded with all of them and with fewer. Its output is greedy, so greedy is its baseline.
ID=bpd CRITERION=blockwise_cross_entropy BASELINE=greedy VARIANTS=('' frozen) AFTER=blockwise_base SHARED=() COMPILES=''
FORCED=(--min-len LENGTH --max-len-a 0 --max-len-b LENGTH)
FLAGS=(--base-checkpoint "$MODELS/blockwise_base-raw.pt") BASE=(--base-checkpoint "$MODELS/base-blockwise_base.pt")
FLAGS+=(--block-heads 8)
if [[ $VARIANT == frozen ]]; then FLAGS+=(--freeze base); fi
case $CORPUS in
  super_resolution) # heads on the base, trained on with it; pixels are accepted within 2 of what it says (section 5.2)
    ID=${RESTORE/super_resolution/sr} AFTER='' DATASETS=(raw) VARIANTS=(k6)
    if [[ $RESTORE == super_resolution ]]; then VARIANTS=(k6 k10); fi
    lasts "$((2 * (PIXELS + 1)))" "$((IMAGE_UPDATES * 3 / 4))"
    FLAGS=(--base-checkpoint "$MODELS/teacher.pt" --block-heads "${VARIANT#k}" --lr 5e-4
      --total-num-update "$UPDATES" --dropout 0)
    way "$VARIANT" "${SEARCH[@]}" --accept distance --accept-distance 2
    way "$VARIANT-exact" "${SEARCH[@]}"
    return
    ;;
  quickstart) AFTER='' FLAGS[1]=$MODELS/teacher.pt ;; # which saves a training
  multi30k)
    DATASETS=(raw distilled)
    lasts 1024 8000
    if [[ -z $VARIANT ]]; then for heads in 4 8; do timed "k$heads" --block-size "$heads" "${FORCED[@]}"; done; fi
    FLAGS+=(--dropout 0.1 --lr 5e-4 "${FALLING[@]}" "$UPDATES" --label-smoothing 0.1)
    ;;
  *)
    DATASETS=(raw distilled)
    if [[ $CORPUS == wmt* ]]; then lasts 32768 1000000 5; else lasts 8192 100000 5; fi
    FLAGS+=(--label-smoothing 0.1 --adam-betas "(0.9, 0.997)" --adam-eps 1e-9 --lr 1e-3 --lr-scheduler inverse_sqrt
      --warmup-updates 8000)
    ;;
esac
prefix=${VARIANT:+$VARIANT-}
way "${prefix}k8"
for heads in 2 4 6; do way "${prefix}k$heads" --block-size "$heads"; done
if [[ -z $VARIANT && $CORPUS != quickstart ]]; then
  for rank in 2 3; do way "k8-top$rank" --accept top-k --accept-top-k "$rank"; done
fi
