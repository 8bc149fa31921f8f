# Discrete latents: Kaiser et al. 2018, VQ by soft EM after Roy et al. 2018, and a rounding grid (FSQ) after Mentzer et al. 2023.
# A variant is a way to make codes; greedy codes, the best of a beam, and the teacher's choice among ten samples. On small
# corpora the canvas has the predicted length and there are 1,024 codes, each for four tokens; the decoder sees all positions
# and reads codes from the beginning: where it is fed targets first, as in the papers, so few updates leave codes unused.
ID=lt ARCH=latent_transformer CRITERION=elbo_length BASELINE=beam4 OVERFIT=(--max-update 3400) FORCED=(--gold-target-len)
kind=${VARIANT:-fsq}
case $kind in
  vq-em) latent=(--latent vq --vq-em soft) ;;
  dvq-*) latent=(--latent dvq --dvq "${kind#dvq-}") ;;
  fsq-8x) latent=(--latent fsq) ;;
  *) latent=(--latent "$kind") ;;
esac
BASE=("${latent[@]}" --latent-length predicted) codes=(--compression 8)
if [[ $CORPUS == quickstart || $CORPUS == multi30k ]]; then
  codes=(--compression "$([[ $kind == *-8x ]] && echo 8 || echo 4)" --codebook-size 1024 --latent-length predicted
    --latent-curriculum none --latent-decoder-self-attn full)
fi
case $CORPUS in
  quickstart) DATASETS=(raw distilled) BASELINE=beam5 FLAGS=("${WARM[@]}") ;;
  multi30k)
    lasts 1024 8000
    VARIANTS=('' fsq-8x vq vq-em dvq-sliced dvq-projected semhash gumbel)
    FLAGS=("${WARM[@]}" --dropout 0.1 --lr 2e-3 "${FALLING[@]}" "$UPDATES" --label-smoothing 0)
    ;;
  *)
    VARIANTS=('' vq vq-em dvq-sliced dvq-projected semhash gumbel)
    if [[ $CORPUS == wmt* ]]; then lasts 32768 250000 5; else lasts 16384 100000 5; fi
    FLAGS=(--adam-betas "(0.9, 0.997)" --adam-eps 1e-9 --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 8000)
    ;;
esac
FLAGS+=("${latent[@]}" "${codes[@]}")
way "$kind"
if [[ -z $VARIANT ]]; then
  way "$kind-beam10" --iter-decode-with-beam 10
  way "$kind-rescored" --decode-samples 10 --iter-decode-with-external-reranker
fi
