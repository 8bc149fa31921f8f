# Mask-predict: Ghazvininejad et al. 2019, section 4.1 and the command of the release; five lengths, on Multi30k one and two.
ID=cmlm CRITERION=token_length BASELINE=beam4 SHOWN=(--iter-decode-max-iter 3)
OVERFIT_WAY=(--iter-decode-max-iter 9 --iter-decode-with-beam 2)
# Rules of unmasking: threshold and entropy end by themselves, rarely after 50 passes; gap ends linear's ten passes early.
for rule in linear cosine; do
  for passes in 2 4 6 8 10; do swept "$rule-t$passes" --unmask "$rule" --iter-decode-max-iter $((passes - 1)); done
done
for sweep in "threshold 49 0.5 0.7 0.8 0.9 0.95" "entropy 49 8 4 2 1 0.5" "gap 9 0.5 0.75 1 1.5 2"; do
  read -r rule most values <<<"$sweep"
  for value in $values; do
    swept "$rule-u$value" --unmask "$rule" --unmask-threshold "$value" --iter-decode-max-iter "$most"
  done
done
# In the rounds of EM all words are masked: a student of one pass
ONE_PASS=(--iter-decode-max-iter 0) FURTHER=(--glance 0:0 --eval-bleu-args '{"iter_decode_max_iter": 0}') EM_ID=em
em argmax "${ONE_PASS[@]}"
em odd "${ONE_PASS[@]}" --deduplicate
em collapsed "${ONE_PASS[@]}" --collapse-repeats
em rescored "${ONE_PASS[@]}" --iter-decode-with-beam 9 --iter-decode-with-external-reranker
case $CORPUS in
  quickstart)
    DATASETS=(raw distilled) BASELINE=beam5 FLAGS=("${WARM[@]}")
    for passes in 1 4; do way "t$passes" --iter-decode-max-iter $((passes - 1)); done
    way t1-odd --iter-decode-max-iter 0 --deduplicate
    ;;
  multi30k)
    DATASETS=(raw distilled)
    lasts 1024 16000
    if [[ $DATA == raw ]]; then lasts 1024 6000; fi # from there on it overfits
    FLAGS=("${WARM[@]}" --dropout 0.1 --lr 2e-3 "${FALLING[@]}" "$UPDATES" --eval-bleu-args '{"iter_decode_max_iter": 3}')
    for passes in 1 2 4 10; do
      way "t$passes-l1" --iter-decode-max-iter $((passes - 1)) --iter-decode-with-beam 1
      way "t$passes" --iter-decode-max-iter $((passes - 1)) --iter-decode-with-beam 2
    done
    # Is it the length? The reference's own, more of them, the teacher's choice among them.
    for passes in 1 4 10; do explain "t$passes-gold" --iter-decode-max-iter $((passes - 1)) --gold-target-len; done
    # Or repeats, which one pass is full of: Sun & Yang's words without them, or all but one of them dropped.
    for lengths in 1 2; do
      explain "t1-l$lengths-odd" --iter-decode-max-iter 0 --iter-decode-with-beam "$lengths" --deduplicate
      explain "t1-l$lengths-collapsed" --iter-decode-max-iter 0 --iter-decode-with-beam "$lengths" --collapse-repeats
    done
    explain t10-l5 --iter-decode-max-iter 9 --iter-decode-with-beam 5
    explain t10-l5-rescored --iter-decode-max-iter 9 --iter-decode-with-beam 5 --iter-decode-with-external-reranker
    for passes in 1 4 10; do timed "t$passes-l1" --iter-decode-max-iter $((passes - 1)) --gold-target-len; done
    ;;
  *)
    if [[ $CORPUS == wmt* ]]; then lasts 128000 300000 5; else lasts 32000 100000 5; fi
    FLAGS=(--label-smoothing 0.1 --adam-betas "(0.9, 0.999)" --adam-eps 1e-6 --weight-decay 0.01 --lr 5e-4
      --lr-scheduler inverse_sqrt --warmup-updates 10000 --warmup-init-lr 1e-7 --eval-bleu-args '{"iter_decode_max_iter": 3}')
    for passes in 1 4 10; do way "t$passes" --iter-decode-max-iter $((passes - 1)) --iter-decode-with-beam 5; done
    way t1-odd --iter-decode-max-iter 0 --iter-decode-with-beam 5 --deduplicate
    ;;
esac
if [[ $DATA == distilled ]]; then way drafter --beam 1 --drafter '{model}'; fi # the teacher's greedy output, in fewer calls
