#!/usr/bin/env bash
# Mask-predict. The paper has no model of this corpus: smaller updates, and fewer of them.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=mask_predict TOKENS=${TOKENS:-32000} UPDATES=${UPDATES:-100000} BEST=${BEST:-5}
source "$HERE/../methods/mask_predict.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
