#!/usr/bin/env bash
# Latents on target positions on updates of 8,192 tokens, as the release trained them.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=lanmt_continuous TOKENS=${TOKENS:-8192} UPDATES=${UPDATES:-1000000} BEST=${BEST:-1}
ANNEAL="25000 50000" LENGTH_BONUS=0.06
source "$HERE/../methods/lanmt_continuous.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
