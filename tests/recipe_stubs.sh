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
  local file
  for file; do
    [[ -d ${file%/*} ]] || mkdir -p "${file%/*}"
    echo made >"$file"
  done
}

# Every file behind an option.
_leave_all() {
  local option=$1 is_behind='' word
  shift
  for word; do
    if [[ $word == --* ]]; then is_behind=''; elif [[ -n $is_behind && $word == */* ]]; then _leave "$word"; fi
    if [[ $word == "$option" ]]; then is_behind=1; fi
  done
}

# Whether a dry run was asked for, in which the command is printed: of a function a step expects that it sees to that itself.
_said() { [[ -n ${DRY_RUN:-} ]] && words "$@" && echo; }

sacrebleu() { echo "BLEU = 1"; }

bash() {
  [[ $1 == */install.sh ]] || command bash "$@"
}

python() {
  if _said python "$@"; then return; fi
  _record "$@"
  local out
  out=$(_value_of --out "$@")
  _leave "$out"/{train,valid,test}.{en,de} "$out/corpus.json"
}

fairseq-preprocess() {
  _record fairseq-preprocess "$@"
  local folder source target
  folder=$(_value_of --destdir "$@") source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
  _leave "$folder"/dict.{"$source","$target"}.txt "$folder"/{train,test}."$source-$target".{"$source","$target"}.bin
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

nar() {
  if _said nar "$@"; then return; fi
  _record nar "$@"
  local verb=$1 out file source target
  shift
  out=$(_value_of --output "$@")
  case $verb in
    align) if [[ -n $out ]]; then _leave "$out"; else _leave "$(_value_of --word-counts "$@")"/{train,valid}; fi ;;
    fetch) mkdir -p "${1%/*}" && echo made | gzip -n >"$1" ;;
    extract | filter | join) _leave_all --output "$@" && _leave_all --hold-out "$@" ;;
    prepare) if [[ $1 == learn ]]; then _leave "$(_value_of --codes "$@")"; else _prepare "$@"; fi ;;
    distill)
      source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
      _leave "$out"/{train."$source",train."$target",manifest.json,nbest.gz}
      ;;
    train)
      while [[ $1 != -- ]]; do shift; done
      "${@:2}"
      ;;
    curve)
      file=$(_value_of --figure "$@")
      if [[ -n $file ]]; then _leave "$file".{png,svg}; else echo "[]" >"$out"; fi
      ;;
    report) case $(_value_of --figure "$@") in
      all) _leave "$out"/{latency,speed}.{png,svg} ;;
      ?*) _leave "$out".{png,svg} ;;
    esac ;;
    em) _em "$@" ;;
    images)
      case $1 in
        cut) _leave "$out"/{train,valid,test}.{low,high} "$out"/dict.{low,high}.txt "$out/images.json" ;;
        picture) _leave "$out" ;;
      esac
      ;;
    latents) _leave "$out".{plane,bound,bleu}.{png,svg} ;;
    show) _leave "$(_value_of --html "$@")" ;;
    release) [[ $1 != pack ]] || _leave "$2/manifest.json" ;;
    *) [[ -z $out ]] || _leave "$out" ;;
  esac
}

_em() {
  local out figure source target
  out=$(_value_of --output "$@") figure=$(_value_of --figure "$@")
  source=$(_value_of --source-lang "$@") target=$(_value_of --target-lang "$@")
  case $1 in
    candidates) _leave "$out".{"$source","$target"} ;;
    select) _leave "$out"/{train."$source",train."$target",manifest.json} ;;
    report) _leave "$out" "$figure".{bleu,ncmm}.{png,svg} ;;
    goes-on) ;;
    *) _leave "$out" ;;
  esac
}

# In the folder --output-dir a file for each of --input.
_prepare() {
  local folder is_input='' word
  folder=$(_value_of --output-dir "$@")
  for word; do
    if [[ $word == --* ]]; then is_input=''; elif [[ -n $is_input ]]; then _leave "$folder/${word##*/}"; fi
    if [[ $word == --input ]]; then is_input=1; fi
  done
}
