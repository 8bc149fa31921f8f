#!/usr/bin/env bash
# Every step of this recipe, one after the other.   bash run.sh [--offline DIR]
set -euo pipefail
bash "${BASH_SOURCE[0]%/*}/../../scripts/install.sh"
for step in "${BASH_SOURCE[0]%/*}"/[1-7]_*.sh; do bash "$step" "$@"; done
