#!/usr/bin/env bash
# Everything in minutes, on two cores, on a corpus that it makes itself: a teacher, its distilled data, a student, a table.
#   bash examples/quickstart/run.sh [STEP...]      METHODS=all: every method, not mask-predict alone
# What is done and whole is passed over; a killed run goes on where it was.
SOURCE=en TARGET=de SIZE=${SIZE:-small} METHODS=${METHODS:-mask_predict} JOBS=${JOBS:-2}
ARCHIVES=() TEXTS=(train valid test) TOKENIZE=() MERGES=${MERGES:-2000} SEARCH=(--beam 5)
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
STEPS=(download prepare teacher distil students measure report)
# Small batches: on one core an update costs what its tokens cost, and many updates teach more than large ones. No dropout
# and no smoothing: each sees its data about twice.
COMMON=(--adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 2e-3 --lr-scheduler polynomial_decay --total-num-update 1600
  --warmup-updates 100 --disable-validation --no-epoch-checkpoints --save-interval-updates 200 --keep-interval-updates 1)
OWN+=(--dropout 0 --label-smoothing 0) DISTIL=(--max-tokens 4000) LASTS=(320 1600)
CLOCK=(--sentences "${SENTENCES:-100}" --allow-noise) # on a busy machine times are marked: this is no place to insist
do_download() {
  step corpus to "$RAW"/{train,valid,test}.{en,de} "$RAW/corpus.json" -- python "$HERE/make_corpus.py" --out "$RAW"
}
main "$@"
