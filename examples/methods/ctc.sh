# CTC: Libovický & Helcl 2018, Saharia et al. 2020; on a canvas of twice the source, by argmax, by a prefix beam of ten, and by
# the teacher's choice among the ten. Variants: glancing (Qian et al. 2021), deep supervision (Huang et al. 2022), and the
# encoder alone, as deep as both stacks.
ID=ctc CRITERION=alignment FORCED=() OVERFIT_WAY=(--iter-decode-with-beam 1) SHOWN=(--iter-decode-with-beam 1)
case $VARIANT in
  glat) kind=(--glance 0.5:0.1) ;;
  dslp) kind=(--deep-supervision) ;;
  encoder) kind=(--decoder-layers 0 --encoder-layers 8) ;;
  *) kind=() ;;
esac
em argmax
em rescored --iter-decode-with-beam 9 --iter-decode-with-external-reranker
way "${VARIANT:-argmax}"
case $CORPUS in
  quickstart) DATASETS=(raw distilled) BASELINE=beam5 FLAGS=("${WARM[@]}") ;;
  multi30k)
    DATASETS=(raw distilled) VARIANTS=('' glat dslp encoder)
    lasts 1024 8000
    FLAGS=("${WARM[@]}" --dropout 0.1 --lr 2e-3 "${FALLING[@]}" "$UPDATES" --label-smoothing 0 "${kind[@]}")
    timed "${VARIANT:-argmax}"
    ;;
  *)
    VARIANTS=('' glat dslp)
    if [[ $CORPUS == wmt* ]]; then lasts 64000 300000 5; else lasts 32000 100000 5; fi
    FLAGS=(--adam-betas "(0.9, 0.999)" --weight-decay 0.01 --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 10000
      --warmup-init-lr 1e-7 "${kind[@]}")
    ;;
esac
way "${VARIANT:+$VARIANT-}beam10" --iter-decode-with-beam 10
if [[ $CORPUS != quickstart ]]; then
  way "${VARIANT:+$VARIANT-}rescored" --iter-decode-with-beam 10 --iter-decode-with-external-reranker
fi
if [[ $DATA == distilled && -z $VARIANT ]]; then way drafter --beam 1 --drafter '{model}'; fi
