#!/usr/bin/env bash
# Every step of this recipe, one after the other.   bash run.sh [--offline DIR]
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
bash "$here/../../scripts/install.sh"
for step in "$here"/[1-7]_*.sh; do bash "$step" "$@"; done
