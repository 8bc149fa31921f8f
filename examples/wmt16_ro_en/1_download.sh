#!/usr/bin/env bash
# The archives, each from the first of its addresses that serves it whole.
# shellcheck disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
begin "${BASH_SOURCE[0]}" download "$@"
