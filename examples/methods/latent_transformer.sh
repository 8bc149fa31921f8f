# LaNMT: Shu et al. 2020 and its release: free bits whose budget falls in the second half, then updates without any (not on
# Multi30k: the average of five checkpoints is better on its valid set than one after such an epoch); the
# prior's mean, delta steps, and samples of latents (50) that the model or the teacher judges.
ID=${ID:-lanmt} CRITERION=elbo_length BASELINE=beam3 PICTURED=2 SHOWN=(--iter-decode-max-iter 4)
OVERFIT=(--budget-anneal-start 1700 --budget-anneal-end 3400 --max-update 3400) OVERFIT_WAY=(--iter-decode-max-iter 2)
one_step=(--iter-decode-max-iter 1) fixed=() gaussian=(--eval-bleu-args '{"iter_decode_max_iter": 1}')
case $CORPUS in
  quickstart) # gradients are not clipped, as its authors' are not: losses are sums over a sentence, so that each would be cut
    DATASETS=(raw distilled) BASELINE=beam5
    FLAGS=("${WARM[@]}" --clip-norm 0 --budget-anneal-start 800 --budget-anneal-end 1600)
    ;;
  multi30k)
    lasts 1024 8000
    fixed=(--stop-rule none) gaussian+=(--dropout 0.1)
    FLAGS=("${WARM[@]}" "${gaussian[@]}" --lr 2e-3 "${FALLING[@]}" "$UPDATES" --budget-anneal-start $((UPDATES / 2))
      --budget-anneal-end "$UPDATES")
    ;;
  *)
    if [[ $CORPUS == wmt14* ]]; then lasts 65536 100000 1 2000; else lasts 65536 100000 1 1000; fi
    if [[ $CORPUS == iwslt* ]]; then lasts 16384 50000 1 500; fi
    FLAGS=("${gaussian[@]}" --label-smoothing 0.1 --adam-betas "(0.9, 0.98)" --adam-eps 1e-4 --lr 1.4e-3
      --lr-scheduler inverse_sqrt --warmup-updates 4000 --budget-anneal-start $((UPDATES / 2)) --budget-anneal-end "$UPDATES")
    FINETUNE=("${FLAGS[@]}" --budget 0 --lr 1e-4 --lr-scheduler fixed --warmup-updates 0)
    ;;
esac
ONE_PASS=(--iter-decode-max-iter 0)
if [[ -z ${FROM_SCRATCH:-} ]]; then FURTHER=(--budget 0); fi
way prior --iter-decode-max-iter 0
way delta1 "${one_step[@]}" "${fixed[@]}"
if [[ $CORPUS == multi30k ]]; then
  for steps in 2 4; do way "delta$steps" --iter-decode-max-iter "$steps" --stop-rule none; done
  # Is it the length? Or what may be decoded but is not taught: repeats.
  explain prior-gold --stop-rule none --iter-decode-max-iter 0 --gold-target-len
  explain delta-gold --stop-rule none "${one_step[@]}" --gold-target-len
  explain delta-collapsed --stop-rule none "${one_step[@]}" --collapse-repeats
  explain delta-odd --stop-rule none "${one_step[@]}" --deduplicate # Sun & Yang 2020
  for steps in 0 1 4; do timed "delta$steps" --iter-decode-max-iter "$steps" --stop-rule none --gold-target-len; done
fi
search=("${one_step[@]}" --decode-samples 50)
if [[ $CORPUS != multi30k ]]; then search+=(--rescore-norm sum); fi
if [[ $CORPUS != multi30k ]]; then way delta1-odd "${one_step[@]}" --deduplicate; fi
if [[ $CORPUS != quickstart ]]; then
  way search-own "${search[@]}"
  way search "${search[@]}" --iter-decode-with-external-reranker
fi
