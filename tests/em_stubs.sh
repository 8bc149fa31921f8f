# shellcheck shell=bash
# As recipe_stubs.sh, but the EM loop is real: texts go through it, and nar's own steps of it. KILL=before or after: every
# program of the loop is killed once, with the whole recipe, before or after what it does; called again it is not.
# shellcheck source=tests/recipe_stubs.sh
source "${BASH_SOURCE[0]%/*}/recipe_stubs.sh"
eval "_plain_$(declare -f nar)"

_killed() {
  local mark
  if [[ ${KILL:-} != "$1" ]]; then return; fi
  mark=$RECORD.killed/$(printf '%s\0' "${@:2}" | sha256sum | cut -c 1-40)
  if [[ -e $mark ]]; then return; fi
  mkdir -p "${mark%/*}"
  : >"$mark"
  kill -KILL $$
  exit 1 # of a subshell, which lives on
}
# around COMMAND...: it may be killed before or after
around() {
  _killed before "$@"
  "$@"
  _killed after "$@"
}
_python() { command python "$@"; }
programs() { _python "${BASH_SOURCE[0]%/*}/em_programs.py" "$@"; }

python() {
  local out lang
  out=$(_value_of --out "$@")
  mkdir -p "$out"
  for lang in en de; do
    for split in train valid test; do printf '%s\n' "a $split b" "c d" "e f $split g" "h" >"$out/$split.$lang"; done
  done
  _leave "$out/corpus.json"
}
_preprocess() {
  local folder source target split lang from
  folder=$(_value_of --destdir "$@") source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
  mkdir -p "$folder"
  for lang in "$source" "$target"; do
    echo word >"$folder/dict.$lang.txt"
    for split in train valid test; do
      from=$(_value_of "--${split}pref" "$@")
      if [[ -n $from ]]; then cp "$from.$lang" "$folder/$split.$source-$target.$lang.bin"; fi
    done
  done
}
fairseq-preprocess() { _record fairseq-preprocess "$@" && around _preprocess "$@" && echo "[$1] 3 sents"; }
_train() {
  local folder
  folder=$(_value_of --save-dir "$@")
  mkdir -p "$folder"
  { cat "$1"/train.*.bin && printf '%s\n' "${@:2}" | sed "s|$OUT||g"; } | sha256sum >"$folder/checkpoint_last.pt"
}
fairseq-train() { _record fairseq-train "$@" && around _train "$@"; }
fairseq-generate() { _record fairseq-generate "$@" && around programs generate "$@"; }
_average() { cp "$(_value_of --inputs "$@")" "$(_value_of --output "$@")"; }
_copy() {
  local folder is_input='' word
  folder=$(_value_of --output-dir "$@")
  mkdir -p "$folder"
  for word; do
    if [[ $word == --* ]]; then is_input=''; elif [[ -n $is_input ]]; then cp "$word" "$folder/"; fi
    if [[ $word == --input ]]; then is_input=1; fi
  done
}
nar() {
  if _said nar "$@"; then return; fi
  case "$1 $2" in
    "em score") _record nar "$@" && around programs score "$@" ;;
    "em goes-on") _record nar "$@" && _python -m nar_tools "$@" ;;
    em\ *) _record nar "$@" && around _python -m nar_tools "$@" ;;
    distill\ *) _record nar "$@" && around programs distill "$@" ;;
    average\ *) _record nar "$@" && around _average "$@" ;;
    "prepare apply" | "prepare tokenize") _record nar "$@" && _copy "$@" ;;
    *) _plain_nar "$@" ;;
  esac
}
