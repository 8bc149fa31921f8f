# A network that refines the latents of lanmt_continuous.sh, by a score or by an energy: Lee, Shu & Cho 2020 and its release;
# steps, and a search over samples and lengths that the teacher judges.
ID=cont CRITERION=score_matching BASELINE=beam3 VARIANTS=('' energy) AFTER=lanmt_continuous SHARED=()
kind=${VARIANT:-score}
FLAGS=(--refiner "$kind" --latent-model "$MODELS/lanmt_continuous-$DATA.pt" --eval-bleu-args '{"iter_decode_max_iter": 1}')
BASE=(--latent-model "$MODELS/base-lanmt_continuous.pt")
case $CORPUS in
  quickstart)
    BASELINE=beam5
    way "$kind" --iter-decode-max-iter 1
    ;;
  multi30k) # from points near the prior's mean: of so few updates those from afar would take most
    lasts 1024 5000
    WEIGHTS=() SEEDS=(2 3) # score and energy are close
    FLAGS+=(--dropout 0.1 --start-noise 0.3 --lr 1e-3 --lr-scheduler polynomial_decay --warmup-updates 300
      --total-num-update 5000 --rollout-start 2500)
    way "$kind" --iter-decode-max-iter 1
    for steps in 2 4; do way "$kind$steps" --iter-decode-max-iter "$steps"; done
    if [[ $kind == score ]]; then
      PICTURED=2 SHOWN=(--iter-decode-max-iter 4)
      for steps in 1 4; do timed "score$steps" --iter-decode-max-iter "$steps" --gold-target-len; done
    fi
    ;;
  *)
    step_size=0.8
    case $CORPUS in
      wmt14*) lasts 65536 100000 1 && step_size=1 ;;
      wmt16*) lasts 8192 100000 1 && step_size=1 ;;
      *) lasts 4092 100000 1 ;;
    esac
    FLAGS+=(--rollout-step-size "$step_size" --adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 1.4e-3
      --lr-scheduler inverse_sqrt --warmup-updates 4000)
    way "$kind" --iter-decode-max-iter 1 --latent-step-size "$step_size"
    ;;
esac
search=(--decode-samples 10 --iter-decode-with-beam 5 --iter-decode-with-external-reranker)
if [[ $kind == score && $CORPUS != quickstart && -z $SEEDED ]]; then
  way search --iter-decode-max-iter 1 ${step_size:+--latent-step-size "$step_size"} "${search[@]}"
fi
