#!/usr/bin/env bash
# Text, Moses tokens, the training pairs that stay, subwords, binarised data.
# shellcheck disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
begin "${BASH_SOURCE[0]}" prepare "$@"
