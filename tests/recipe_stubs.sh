# shellcheck shell=bash
# Read by every bash of a recipe under test (BASH_ENV): programs are written down in the folder $RECORD, a JSON list in a
# file each (two run at once), and leave the files that the next step asks for.

_record() {
  mkdir -p "$RECORD"
  command python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" >"$RECORD/$(date +%s%N).$BASHPID"
}

# The value of an option in a command line.
_value_of() {
  local option=$1
  shift
  while (($#)); do
    if [[ $1 == "$option" ]]; then
      echo "$2"
      return
    fi
    shift
  done
}

_leave() {
  mkdir -p "$(dirname "$1")"
  echo made >"$1"
}

bash() {
  [[ $1 == */install.sh ]] || command bash "$@"
}

fairseq-preprocess() {
  _record fairseq-preprocess "$@"
  local folder source target
  folder=$(_value_of --destdir "$@") source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
  for file in "dict.$source.txt" "dict.$target.txt" "train.$source-$target.$source.bin" "train.$source-$target.$target.bin"; do
    _leave "$folder/$file"
  done
  echo "[$target] 3 sents"
}

fairseq-train() {
  _record fairseq-train "$@"
  _leave "$(_value_of --save-dir "$@")/checkpoint_last.pt"
}

fairseq-generate() {
  _record fairseq-generate "$@"
  printf 'S-0\tx\nH-0\t0\tx\nGenerate train\n'
}

python() {
  _record "$@"
  local out
  out=$(_value_of --output "$@")
  case ${1##*/} in
    make_corpus.py) for split in train valid test; do
      for lang in en de; do _leave "$(_value_of --out "$@")/$split.$lang"; done
    done && _leave "$(_value_of --out "$@")/corpus.json" ;;
    prepare_text.py) _leave "$(_value_of --codes "$@")" && [[ -z $out ]] || _leave "$out" ;;
    collect_distilled.py) _collect "$@" ;;
    *) [[ -z $out ]] || _leave "$out" ;;
  esac
}

_collect() {
  local out
  out=$(_value_of --output "$@")
  [[ -n $out ]] || return 0
  for file in train.en train.de manifest.json; do _leave "$out/$file"; done
}
