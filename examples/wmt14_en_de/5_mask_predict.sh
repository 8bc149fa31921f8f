#!/usr/bin/env bash
# Mask-predict on updates of 128,000 tokens, as the paper trained it.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=mask_predict TOKENS=${TOKENS:-128000} UPDATES=${UPDATES:-300000} BEST=${BEST:-5}
source "$HERE/../methods/mask_predict.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
