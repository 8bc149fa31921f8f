# The teacher, autoregressive. Every corpus has its own.
ID=ar ARCH='' DATASETS=(raw)
FLAGS=(--arch transformer --criterion label_smoothed_cross_entropy --eval-bleu-args '{"beam": 1}')
SMALL=(--encoder-normalize-before --decoder-normalize-before --encoder-embed-dim 128 --decoder-embed-dim 128
  --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4
  --encoder-layers 4 --decoder-layers 4)
case $CORPUS in
  quickstart) FLAGS+=("${SMALL[@]}") ;;
  multi30k)
    FLAGS+=("${SMALL[@]}" --dropout 0.3 --lr 2.5e-3 --max-epoch 37 --patience 5)
    BASE=("${BASE_TRANSFORMER[@]}" --encoder-layers 6 --decoder-layers 6)
    ;;
  iwslt16_de_en) # of the size of its students (Gu et al. 2018, released code): the learning rate of Vaswani et al. with 746
    # updates of warm-up (2.2e-3 at the highest)
    lasts 2048 200000 5
    FLAGS+=(--encoder-layers 5 --decoder-layers 5 --encoder-embed-dim 278 --decoder-embed-dim 278 --encoder-ffn-embed-dim 507
      --decoder-ffn-embed-dim 507 --encoder-attention-heads 2 --decoder-attention-heads 2 --dropout 0.079
      --adam-betas "(0.9, 0.98)" --adam-eps 1e-9 --lr 2.2e-3 --lr-scheduler inverse_sqrt --warmup-updates 746)
    ;;
  super_resolution) # half the layers and a quarter of the width of Stern et al.; all patches have the same positions
    lasts "$((2 * (PIXELS + 1)))" "$IMAGE_UPDATES"
    BASELINE=greedy
    FLAGS=("${FLAGS[@]:0:4}" --lr 1e-3 --total-num-update "$UPDATES" --encoder-layers 2 --decoder-layers 4
      --encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512
      --encoder-attention-heads 4 --decoder-attention-heads 4 --encoder-normalize-before --decoder-normalize-before
      --encoder-learned-pos --decoder-learned-pos --max-source-positions "$((PIXELS + 1))"
      --max-target-positions "$((PIXELS + 1))" --share-decoder-input-output-embed --dropout 0)
    ;;
  wmt*) # Vaswani et al. 2017: base, or with TEACHER=big the big model, as mask-predict's students had it on WMT14
    FLAGS=("${FLAGS[@]:2}" --label-smoothing 0.1 --adam-betas "(0.9, 0.98)" --lr-scheduler inverse_sqrt --warmup-updates 4000
      --warmup-init-lr 1e-7)
    lasts 25000 100000 5
    size=(--arch transformer_wmt_en_de --dropout 0.1 --lr 7e-4)
    if [[ ${TEACHER:-base} == big && $METHOD == teacher ]]; then
      lasts 25000 300000 5
      size=(--arch transformer_vaswani_wmt_en_de_big --dropout 0.3 --lr 5e-4)
    fi
    FLAGS+=("${size[@]}")
    ;;
  *) # transformer_iwslt_de_en of fairseq, trained as its README says: IWSLT14, and any corpus of about its size
    lasts 4096 100000 5
    FLAGS=(--arch transformer_iwslt_de_en "${FLAGS[@]:2}" --label-smoothing 0.1 --dropout 0.3 --adam-betas "(0.9, 0.98)"
      --weight-decay 1e-4 --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 4000)
    ;;
esac
if [[ $SIZE == tiny ]]; then
  FLAGS+=(--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 64
    --decoder-ffn-embed-dim 64 --encoder-attention-heads 2 --decoder-attention-heads 2)
fi
if [[ $CORPUS == super_resolution ]]; then
  way greedy "${SEARCH[@]}"
  return
fi
way greedy --beam 1
if [[ ${SEARCH[1]} != 5 ]]; then way "beam${SEARCH[1]}" "${SEARCH[@]}"; fi
way beam5 --beam 5 "${SEARCH[@]:2}"
