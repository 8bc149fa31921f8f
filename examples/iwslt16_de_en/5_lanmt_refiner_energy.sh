#!/usr/bin/env bash
# A network that refines latents on target positions by an energy, on updates of 4,092 tokens.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=lanmt_refiner_energy KIND=energy STEP_SIZE=0.8
TOKENS=${TOKENS:-4092} UPDATES=${UPDATES:-100000} BEST=${BEST:-1}
source "$HERE/../methods/lanmt_refiner.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
