#!/usr/bin/env bash
# Scores, beside those of the papers.
# shellcheck disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
begin "${BASH_SOURCE[0]}" score "$@"
