#!/usr/bin/env bash
# IWSLT14 German to English, cut as fairseq's prepare-iwslt14.sh cuts it: lower case, titles and descriptions are text, 10,000
# merges, pairs of up to 175 tokens and a ratio of 1.5, every 23rd pair validates, all dev and test sets of 2010 to 2012
# are the test set. Scores are of lower-cased text on either side.
#   bash examples/iwslt14_de_en/run.sh [STEP...]        --help names the steps
SOURCE=de TARGET=en SIZE=${SIZE:-iwslt14_de_en}
MIRROR=dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz
ARCHIVES=("de-en.tgz https://$MIRROR http://$MIRROR")
TEXTS=("train de-en.tgz de-en/train.tags.de-en.de de-en.tgz de-en/train.tags.de-en.en")
for set in TED.dev2010 TEDX.dev2012 TED.tst2010 TED.tst2011 TED.tst2012; do
  TEXTS+=("test de-en.tgz de-en/IWSLT14.$set.de-en.de.xml de-en.tgz de-en/IWSLT14.$set.de-en.en.xml")
done
TITLES=1 TOKENIZE=(--lowercase) LONGEST=175 RATIO=1.5 HOLD_OUT=${HOLD_OUT:-23} MERGES=${MERGES:-10000} SEARCH=(--beam 5)
SCORE=(--lowercase)
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
main "$@"
