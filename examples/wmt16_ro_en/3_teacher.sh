#!/usr/bin/env bash
# The teacher: base, as mask-predict's students had it here.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
source "$HERE/../methods/teacher_wmt.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
