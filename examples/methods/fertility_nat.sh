# Fertilities: Gu et al. 2018, from the encoder of the teacher; then fine-tuned beside it (variant ft), which is decoded by argmax
# and by the teacher's choice among ten and a hundred drawn vectors. Word counts are those of an alignment of the text.
ID=nat CRITERION=token_length COUNTED=1 VARIANTS=('' ft) OVERFIT_WAY=(--fertility argmax) SHOWN=(--fertility argmax)
FLAGS=(--word-counts "$OUT/counts-$DATA")
case $VARIANT in
  ft)
    CRITERION=fertility_finetune AFTER=fertility_nat WEIGHTS=() OVERFIT_WAY=() SHOWN=()
    FLAGS+=(--finetune-from-model "$MODELS/fertility_nat-$DATA.pt" --finetune-teacher "$MODELS/teacher.pt")
    way ft
    npd=(--fertility sample --iter-decode-with-external-reranker)
    way npd10 "${npd[@]}" --decode-samples 10
    if [[ $CORPUS != quickstart ]]; then way npd100 "${npd[@]}" --decode-samples 100 --max-candidate-tokens 8192; fi
    ;;
  *) way argmax ;;
esac
case $CORPUS-$VARIANT in
  quickstart-ft)
    lasts 320 400
    FLAGS+=(--lr 2e-4 --total-num-update "$UPDATES")
    ;;
  quickstart-) FLAGS+=("${WARM[@]}") ;;
  multi30k-ft)
    lasts 1024 2000
    FLAGS+=(--dropout 0.1 --lr 1e-4 "${FALLING[@]}" "$UPDATES" --label-smoothing 0)
    explain average --fertility average
    explain search10 --fertility search --decode-samples 10 --iter-decode-with-external-reranker
    explain sample10-own --fertility sample --decode-samples 10
    ;;
  multi30k-)
    lasts 1024 8000
    FLAGS+=("${WARM[@]}" --dropout 0.1 --lr 2e-3 "${FALLING[@]}" "$UPDATES" --label-smoothing 0)
    timed argmax --gold-target-len
    ;;
  *-ft) # released code: a constant rate, a tenth for the terms that the teacher judges of Romanian, else a quarter
    if [[ $CORPUS == wmt* ]]; then lasts 1024 100000 1; else lasts 1600 50000 1; fi
    share=0.25
    if [[ $CORPUS == wmt16* ]]; then share=0.1; fi
    FLAGS+=(--finetune-lambda "$share" --adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 2e-5 --lr-scheduler fixed)
    ;;
  *)
    rate=(--lr 3.49e-4 --warmup-updates 16000)
    lasts 2048 1000000 1
    if [[ $CORPUS != wmt* ]]; then lasts 2048 200000 1 && rate=(--lr 2.2e-3 --warmup-updates 746); fi
    FLAGS+=(--warm-start "$MODELS/teacher.pt" --warm-start-parts "embeddings,encoder" --adam-betas "(0.9, 0.98)" --adam-eps 1e-9
      --lr-scheduler inverse_sqrt "${rate[@]}")
    ;;
esac
