#!/usr/bin/env bash
# A deep encoder and a shallow decoder, trained as the teacher.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
source "$HERE/../methods/deep_shallow.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
