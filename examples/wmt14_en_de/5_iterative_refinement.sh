#!/usr/bin/env bash
# Iterative refinement on updates of 2,048 tokens, as the paper trained it.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=iterative_refinement TOKENS=${TOKENS:-2048} UPDATES=${UPDATES:-500000} BEST=${BEST:-1}
source "$HERE/../methods/iterative_refinement.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
