#!/usr/bin/env bash
# Latents on target positions. The paper has no model of this corpus: as it trained IWSLT16, without a bonus on the length.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=lanmt_continuous TOKENS=${TOKENS:-4092} UPDATES=${UPDATES:-200000} BEST=${BEST:-1}
ANNEAL='' LENGTH_BONUS=0
source "$HERE/../methods/lanmt_continuous.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
