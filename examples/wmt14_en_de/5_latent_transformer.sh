#!/usr/bin/env bash
# LaNMT on updates of 65,536 tokens, as the release trained it, and an epoch of updates more.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=latent_transformer TOKENS=${TOKENS:-65536} UPDATES=${UPDATES:-100000} BEST=${BEST:-1}
FINETUNE_UPDATES=${FINETUNE_UPDATES:-2000}
source "$HERE/../methods/latent_transformer.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
