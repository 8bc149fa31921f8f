#!/usr/bin/env bash
# The test set by every model that was trained, in every way that its script says.
# shellcheck disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
begin "${BASH_SOURCE[0]}" decode "$@"
