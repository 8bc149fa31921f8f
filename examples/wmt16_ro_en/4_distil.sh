#!/usr/bin/env bash
# What the teacher says to every training sentence, binarised.
# shellcheck disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
begin "${BASH_SOURCE[0]}" distil_and_binarise "$@"
