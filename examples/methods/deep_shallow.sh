# shellcheck shell=bash disable=SC2034,SC1091
# Twelve encoder layers and one decoder layer, autoregressive, on distilled data: what a parallel decoder has to beat
# (Kasai et al. 2021). All else is its teacher's.
TEACHER=base
source "$HERE/3_teacher.sh"
METHOD=deep_shallow FLAGS+=(--encoder-layers 12 --decoder-layers 1 "${TINY[@]}")
DECODES=("ar-deep-shallow --beam 1" "ar-deep-shallow-beam5 --beam 5 ${SEARCH[*]:2}")
