#!/usr/bin/env bash
# Sequence-level distillation: a teacher translates the train split; valid and test are never touched.
#   distill.sh --data BIN_DIR --teacher CKPT --source-lang S --target-lang T --source-text FILE --target-text FILE
#              --output DIR [--beam 5] [--lenpen 1] [--nbest 1] [--max-tokens 8000] [--shards 2] [--jobs 2]
#              [--gpus 0] [--machine 0/1] [--task translation_nar] [--teacher-bleu "36.9, signature"]
#              [-- further flags of fairseq-generate]
# It is `nar distill` of this project's environment; `distill.sh --help` says more.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$root/.venv/bin:$PATH" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec nar distill "$@"
