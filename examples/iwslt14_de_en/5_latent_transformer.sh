#!/usr/bin/env bash
# LaNMT. The paper has no model of this corpus: smaller updates.
# shellcheck disable=SC1091,SC2034
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
METHOD=latent_transformer TOKENS=${TOKENS:-16384} UPDATES=${UPDATES:-50000} BEST=${BEST:-1}
FINETUNE_UPDATES=${FINETUNE_UPDATES:-500}
source "$HERE/../methods/latent_transformer.sh"
begin "${BASH_SOURCE[0]}" learn "$@"
