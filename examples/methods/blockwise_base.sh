# What the heads of blockwise_transformer.sh stand on: the teacher's recipe once more, with another seed, as heads learn best
# from the outputs of another model (Stern, Shazeer & Uszkoreit 2018).
source "${BASH_SOURCE[0]%/*}/teacher.sh"
ID=bpd DATASETS=(raw) BASELINE=greedy WAYS=()
FLAGS+=(--seed 2)
way base --beam 1
