# shellcheck shell=bash
# Read by every bash of a recipe under test (BASH_ENV): programs are written down in the folder $RECORD, a file each (two run
# at once) of words that end in NUL, and leave the files that the next step asks for.

_record() {
  [[ -d $RECORD ]] || mkdir -p "$RECORD"
  printf '%s\0' "$@" >"$RECORD/$EPOCHREALTIME.$BASHPID"
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
  [[ -d ${1%/*} ]] || mkdir -p "${1%/*}"
  echo made >"$1"
}

sacrebleu() { echo "BLEU = 1"; }

bash() {
  [[ $1 == */install.sh ]] || command bash "$@"
}

fairseq-preprocess() {
  _record fairseq-preprocess "$@"
  local folder source target
  folder=$(_value_of --destdir "$@") source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
  local pair=$source-$target
  for file in "dict.$source.txt" "dict.$target.txt" {train,test}."$pair"."$source".bin {train,test}."$pair"."$target".bin; do
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
  printf 'S-0\tx\nH-0\t0\tx\nD-0\t0\tx\nGenerate train: BLEU = 1\n'
}

curl() {
  _record curl "$@"
  echo made | gzip -n >"$(_value_of --output "$@")"
}

python() {
  _record "$@"
  local out stem
  out=$(_value_of --output "$@")
  stem=$(_value_of --figure "$@")
  if [[ $1 == */report.py && -n $stem ]]; then stem=$out; fi
  if [[ -n $stem ]]; then _leave "$stem.png" && _leave "$stem.svg" && return; fi
  if [[ $1 == */report.py && $2 == latents ]]; then
    for figure in plane bound bleu; do _leave "$out.$figure.png" && _leave "$out.$figure.svg"; done
    return
  fi
  case ${1##*/} in
    make_corpus.py) for split in train valid test; do
      for lang in en de; do _leave "$(_value_of --out "$@")/$split.$lang"; done
    done && _leave "$(_value_of --out "$@")/corpus.json" ;;
    extract_text.py | filter_pairs.py) _leave_all --output "$@" && _leave_all --hold-out "$@" ;;
    prepare_text.py) if [[ $2 == learn ]]; then _leave "$(_value_of --codes "$@")"; else _leave "$out"; fi ;;
    collect_distilled.py) _collect "$@" ;;
    training_curve.py) echo "[]" >"$out" ;;
    show_refinement.py) _leave "$(_value_of --html "$@")" ;;
    join_sentences.py) _leave "$out" && _leave "${out%.*}.en" ;;
    release.py) [[ $2 != pack ]] || _leave "$3/manifest.json" ;;
    *) [[ -z $out ]] || _leave "$out" ;;
  esac
}

# Every file behind an option.
_leave_all() {
  local option=$1 is_behind=''
  shift
  for word in "$@"; do
    if [[ $word == --* ]]; then is_behind=''; elif [[ -n $is_behind && $word == */* ]]; then _leave "$word"; fi
    if [[ $word == "$option" ]]; then is_behind=1; fi
  done
}

_collect() {
  local out
  out=$(_value_of --output "$@")
  [[ -n $out ]] || return 0
  for file in train.{en,de,ro} manifest.json nbest.gz; do _leave "$out/$file"; done
}
