# Iterative refinement: Lee et al. 2018, released code: a learning rate that falls in a line for 250,000 updates, no label
# smoothing, one checkpoint; decoded without repeats, to the release's fixed point. The release trains until it is stopped.
ID=lee CRITERION=token_length BASELINE=beam4 SHOWN=(--iter-decode-max-iter 19)
OVERFIT_WAY=(--iter-decode-max-iter 9 --stop-rule none)
case $CORPUS in
  quickstart)
    DATASETS=(raw distilled) BASELINE=beam5 FLAGS=("${WARM[@]}")
    way k1 --iter-decode-max-iter 0
    way adaptive --iter-decode-max-iter 9
    ;;
  multi30k)
    lasts 1024 5000
    FLAGS=("${WARM[@]}" --dropout 0.1 --lr 2e-3 "${FALLING[@]}" "$UPDATES" --eval-bleu-args '{"iter_decode_max_iter": 4}')
    for passes in 1 2 5 10; do way "k$passes" --iter-decode-max-iter $((passes - 1)) --stop-rule none; done
    # At most 20 passes: until two say the same, or until a later one of the last six has the words of the oldest (a window
    # chosen on the valid set).
    way adaptive --iter-decode-max-iter 19
    way adaptive6 --iter-decode-max-iter 19 --stop-rule jaccard --stop-window 6
    # Other ways to stop and to guess: the released rule, the best stop of all, several lengths, samples, the reference's length.
    explain jaccard5 --iter-decode-max-iter 19 --stop-rule jaccard --stop-window 5
    explain oracle5 --iter-decode-max-iter 19 --stop-rule oracle --stop-window 5
    explain adaptive-collapsed --iter-decode-max-iter 19 --collapse-repeats
    explain adaptive-l5 --iter-decode-max-iter 19 --iter-decode-with-beam 5
    explain adaptive-gold --iter-decode-max-iter 19 --gold-target-len
    explain k10-samples4 --iter-decode-max-iter 9 --stop-rule none --decode-samples 4
    for passes in 1 5 10; do
      timed "k$passes" --iter-decode-max-iter $((passes - 1)) --stop-rule none --gold-target-len
    done
    ;;
  *)
    lasts 2048 500000 1
    FLAGS=(--adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 3e-4 --lr-scheduler polynomial_decay --end-learning-rate 1e-5
      --total-num-update 250000 --eval-bleu-args '{"iter_decode_max_iter": 4}')
    for passes in 1 2 5 10; do
      way "k$passes" --stop-rule none --iter-decode-max-iter $((passes - 1)) --collapse-repeats
    done
    way adaptive --stop-rule jaccard --stop-window 5 --iter-decode-max-iter 19 --collapse-repeats
    ;;
esac
