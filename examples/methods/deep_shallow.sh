# Twelve encoder layers and one decoder layer, autoregressive, on distilled data: what a parallel decoder has to beat (Kasai,
# Pappas, Peng, Cross & Smith 2021). All else is its teacher's, on Multi30k a shorter training.
source "${BASH_SOURCE[0]%/*}/teacher.sh"
DATASETS=(distilled) BASELINE=greedy WAYS=() OVERFIT_WAY=(--beam 1)
FLAGS+=(--encoder-layers 12 --decoder-layers 1)
if [[ $SIZE == tiny ]]; then FLAGS+=(--encoder-layers 1); fi
if [[ $CORPUS == multi30k ]]; then FLAGS+=(--dropout 0.1 --lr 2e-3 --max-epoch 15 --patience -1); fi
BASE+=(--encoder-layers 12 --decoder-layers 1)
way deep-shallow --beam 1
if [[ $CORPUS != multi30k ]]; then way deep-shallow-beam5 --beam 5 "${SEARCH[@]:2}"; fi
timed deep-shallow --beam 1 --min-len LENGTH --max-len-a 0 --max-len-b LENGTH
