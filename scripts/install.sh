#!/usr/bin/env bash
# Makes .venv in the project's root, or repairs it; quick when nothing is missing. Versions: scripts/requirements.txt.
#   PYTHON=python3.11 bash scripts/install.sh      chooses the interpreter (3.11 or 3.12)
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash scripts/install.sh      takes torch without CUDA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=scripts/requirements.txt
stamp=.venv/.complete
python=.venv/bin/python

say() { echo "install.sh: $*"; }
fail() {
  say "$*" >&2
  exit 2
}
version() { "$1" -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# A command may exist and yet not run (a version manager's shim): only an answer counts.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
    if [[ $(version "$candidate") =~ ^3\.1[12]$ ]]; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or 3.12 with ensurepip among: ${PYTHON:-python3.12 python3.11 python3}; set PYTHON to one"
}

key() { cat "$pins" setup.py <(version "$python") | sha256sum | cut -d ' ' -f 1; }

# Made for this very folder, of a Python that serves (the asked one if any is asked for), and with a pip that runs.
is_sound() {
  grep -qsF "$PWD/.venv" .venv/bin/activate && "$python" -m pip --version >/dev/null 2>&1 &&
    [[ $(version "$python") =~ ^3\.1[12]$ && (-z ${PYTHON:-} || $(version "$python") == "$(version "$PYTHON")") ]]
}

# Our own packages are looked up, not imported: a mistake in the working tree is no reason to rebuild the environment.
works() {
  (cd / && "$OLDPWD/$python" -c 'import fairseq.libnat, sacrebleu, sacremoses, subword_nmt, torch
from importlib.util import find_spec
assert find_spec("nar_plugin") and find_spec("nar_tools")') >/dev/null 2>&1
}

if command -v flock >/dev/null; then
  exec 9<"$pins"
  flock -n 9 || { say "another call is at work: waiting for it" && flock 9; }
fi

if is_sound && [[ -e $stamp && $(<"$stamp") == "$(key)" ]]; then
  if works; then
    say "complete"
    exit 0
  fi
  say "complete but broken: starting from nothing"
  rm -rf .venv
fi

# Says what one stage of the work took.
stage() {
  local began=$SECONDS name=$1
  shift
  "$@" || return
  say "$name: $((SECONDS - began)) s"
}

fresh=false
if ! is_sound; then
  chosen=$(find_python)
  say "making .venv with $chosen, Python $(version "$chosen")"
  rm -rf .venv
  stage "empty environment" "$chosen" -m venv .venv
  fresh=true
fi
rm -f "$stamp"

# pip writes INSTALLER when all files of a package stand: without it the package is the rest of a killed call.
packages=$(echo .venv/lib/python3*/site-packages)
for info in "$packages"/*.dist-info; do
  [[ -e $info/INSTALLER ]] || rm -rf "$info"
done
rm -rf "$packages"/~*

# Another host (fairseq, fairseq-fixed) writes the same files: all hosts go, the mark of the other one last.
others=("$packages"/fairseq{,_fixed}-*.dist-info)
if [[ -e ${others[0]} || -e ${others[1]} ]]; then
  say "removing another host"
  rm -rf "$packages"/ve_fairseq-*.dist-info "$packages"/fairseq{,_cli} "${others[@]}"
fi

install() {
  PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --no-warn-conflicts --no-build-isolation -c "$pins" "$@"
}
# What pip would do on one core. Some packages hold files that are not of this Python: no failure.
compile() { PYTHONWARNINGS=ignore "$python" -m compileall -qq -j 0 "$packages" || true; }

stage "pip" install pip setuptools wheel
[[ -e $packages/torch || -n ${PIP_EXTRA_INDEX_URL:-} ]] ||
  say "torch may come with CUDA, some gigabytes; to have it without: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash scripts/install.sh"
stage "torch" install torch
stage "fairseq" install --no-deps ve-fairseq # why without: see the pins
stage "all else" install -r <(grep -v '^ve-fairseq' "$pins")
stage "bytecode" compile
stage "nar_plugin" install --no-deps -e .

if ! stage "trial" works; then
  "$fresh" && fail "everything is installed but does not import: see  $python -c 'import torch, fairseq, nar_plugin'"
  say "repaired but broken: starting from nothing"
  rm -rf .venv
  exec bash scripts/install.sh
fi
key >"$stamp"
say "complete after $((SECONDS / 60)) min $((SECONDS % 60)) s, $(du -sh .venv | cut -f 1)"
