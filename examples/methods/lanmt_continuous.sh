# Latents on target positions: Lee, Shu & Cho 2020 and its release, which decodes longer targets on some corpora
# (--length-bonus); the prior's mean and delta steps. lanmt_refiner.sh refines them. On small corpora it is trained as LaNMT.
ID=cont
source "${BASH_SOURCE[0]%/*}/latent_transformer.sh"
PICTURED='' SHOWN=() WAYS=()
way prior --iter-decode-max-iter 0 "${fixed[@]}"
way delta "${one_step[@]}" "${fixed[@]}"
case $CORPUS in
  quickstart) ;;
  multi30k) for steps in 2 4; do way "delta$steps" --iter-decode-max-iter "$steps" --stop-rule none; done ;;
  *)
    FINETUNE=() bonus=0
    case $CORPUS in
      wmt14*) lasts 65536 500000 1 ;;
      wmt16*) lasts 8192 1000000 1 && bonus=0.06 ;;
      iwslt16*) lasts 4092 200000 1 && bonus=0.11 ;;
      *) lasts 4092 200000 1 ;;
    esac
    anneal=($((UPDATES / 2)) "$UPDATES")
    if [[ $CORPUS == wmt* ]]; then anneal=(25000 50000); fi
    FLAGS+=(--adam-eps 1e-9 --budget-anneal-start "${anneal[0]}" --budget-anneal-end "${anneal[1]}" --length-bonus "$bonus")
    ;;
esac
