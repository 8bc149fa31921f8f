#!/usr/bin/env bash
# The whole road in minutes, on two cores, without a download beyond the packages: a corpus, a teacher, its distilled
# data, students, one table.
#   bash examples/quickstart/run.sh [--all]       --all: every method in systems/, not the default rows only
# Every step is skipped when its output is there and whole; a killed run goes on where it was.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$HERE/out}
# shellcheck source=examples/lib.sh
source "$HERE/../lib.sh"

METHODS=(mask_predict)
case ${1:-} in
  --all) mapfile -t METHODS < <(cd "$HERE/systems" && printf '%s\n' *.sh | sed 's/\.sh$//') ;;
  "") ;;
  *) fail "unknown option $1; there is --all" ;;
esac

bash scripts/install.sh
SOURCE=en TARGET=de
RAW=$OUT/raw BPE=$OUT/bpe DISTILLED=$OUT/distilled

MERGES=2000
SPLITS=(--validpref "$BPE/valid" --testpref "$BPE/test")
# What teacher and students share. Small batches: on one core an update costs what its tokens cost, and many updates
# teach more than large ones. No dropout and no smoothing: each sees its data about twice.
COMMON=(--task translation_nar --cpu --seed 1 --share-all-embeddings --dropout 0 --label-smoothing 0
  --optimizer adam --adam-betas "(0.9, 0.98)" --clip-norm 1.0 --lr 2e-3 --lr-scheduler polynomial_decay
  --warmup-updates 100 --max-tokens 320 --disable-validation --no-epoch-checkpoints
  --save-interval-updates 200 --keep-interval-updates 1 --log-interval 100)
TEACHER=(--arch transformer --criterion label_smoothed_cross_entropy --max-update 1600 --total-num-update 1600
  --encoder-layers 4 --decoder-layers 4 --encoder-embed-dim 128 --decoder-embed-dim 128
  --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4
  --encoder-normalize-before --decoder-normalize-before)

SEAL="${COMMON[*]}"

# Each method's file adds its trainings (one on raw, one on distilled data) and its rows of the table:
#   <method>_train DATA NAME     trains on DATA into models/NAME.pt
#   <method>_rows                calls  row ID WORDS-OF-TRAINING FLAGS...  for each row
for method in "${METHODS[@]}"; do
  # shellcheck source=examples/quickstart/systems/mask_predict.sh
  source "$HERE/systems/$method.sh"
  "${method}_rows"
done

step corpus to "$RAW/corpus.json" -- python "$HERE/make_corpus.py" --out "$RAW"
step bpe from "$RAW/corpus.json" to "$OUT/codes" "$BPE"/{train,valid,test}.{en,de} -- to_bpe
step binarise from "$OUT/codes" to "$OUT/bin/dict.en.txt" "$OUT/bin/train.en-de.de.bin" -- \
  binarise "$OUT/bin" --trainpref "$BPE/train" "${SPLITS[@]}"

models=("$OUT/models/teacher.pt") raw=() distilled=()
for method in "${METHODS[@]}"; do
  models+=("$OUT/models/$method-raw.pt" "$OUT/models/$method-distilled.pt")
  raw+=(: step "$method-raw" from "$OUT/bin" to "$OUT/models/$method-raw.pt" -- \
    "${method}_train" "$OUT/bin" "$method-raw")
  distilled+=(: step "$method-distilled" from "$OUT/bin-distilled" to "$OUT/models/$method-distilled.pt" -- \
    "${method}_train" "$OUT/bin-distilled" "$method-distilled")
done
# One core for the teacher, the other for the students on raw data, which need no teacher.
together step teacher from "$OUT/bin" to "$OUT/models/teacher.pt" -- \
  train teacher "$OUT/bin" "${COMMON[@]}" "${TEACHER[@]}" "${raw[@]}"
step distil from "$OUT/models/teacher.pt" to "$DISTILLED"/{train.en,train.de,manifest.json} -- \
  distil "$DISTILLED" --beam 5 --max-tokens 4000
step binarise-distilled from "$DISTILLED/manifest.json" to "$OUT/bin-distilled/train.en-de.de.bin" -- \
  binarise "$OUT/bin-distilled" --trainpref "$DISTILLED/train" --srcdict "$OUT/bin/dict.en.txt" "${SPLITS[@]}"
together "${distilled[@]}"

# On a busy machine the times are marked, not refused: a quickstart is no place to insist.
measure() {
  python scripts/benchmark.py "$OUT/bin" --reference "$RAW/test.de" --source-lang en --target-lang de \
    --output "$OUT/results.json" --sentences "${SENTENCES:-100}" --allow-noise "$@"
}
step measure from "${models[@]}" to "$OUT/results.json" -- measure \
  --teacher "$(words --train raw --path "$OUT/models/teacher.pt" "${DECODE[@]}")" "${ROWS[@]}"
say "results ($OUT/results.json)"
python scripts/report.py "$OUT/results.json"

say "a sentence of your own (from $ROOT)"
cat <<TEXT
echo "The concert in Norway takes place on May 6 at 9:00 AM." | .venv/bin/fairseq-interactive $OUT/bin \\
  ${DECODE[*]} --source-lang en --target-lang de --iter-decode-max-iter 3 \\
  --path $OUT/models/${METHODS[0]}-distilled.pt \\
  --tokenizer moses --bpe subword_nmt --bpe-codes $OUT/codes 2>/dev/null | grep ^D-
TEXT
