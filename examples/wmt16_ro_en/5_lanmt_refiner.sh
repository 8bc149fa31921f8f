#!/usr/bin/env bash
# A network that refines latents on target positions by a score, on updates of 8,192 tokens.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=lanmt_refiner KIND=score STEP_SIZE=1
TOKENS=${TOKENS:-8192} UPDATES=${UPDATES:-100000} BEST=${BEST:-1}
source "$HERE/../methods/lanmt_refiner.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
