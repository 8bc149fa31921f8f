#!/usr/bin/env bash
# WMT14 English to German, cut as fairseq's prepare-wmt14en2de.sh --icml17 cuts it, with 32,000 merges (Sun & Yang 2020) and
# newstest2013 to validate. HOLD_OUT=100: every hundredth training pair validates, as in that script.
#   bash examples/wmt14_en_de/run.sh [STEP...]        --help names the steps
SOURCE=en TARGET=de SIZE=${SIZE:-wmt14_en_de}
WMT13=statmt.org/wmt13 WMT14=statmt.org/wmt14
EUROPARL=training-parallel-europarl-v7.tgz CRAWL=training-parallel-commoncrawl.tgz NEWS=training-parallel-nc-v9.tgz
ARCHIVES=(
  "$EUROPARL https://www.$WMT13/$EUROPARL http://data.$WMT13/$EUROPARL"
  "$CRAWL https://www.$WMT13/$CRAWL http://data.$WMT13/$CRAWL"
  "$NEWS https://www.$WMT14/$NEWS http://data.$WMT14/$NEWS"
  "wmt13-test.tgz https://www.$WMT13/test.tgz http://data.$WMT13/test.tgz"
  "test-full.tgz https://www.$WMT14/test-full.tgz http://data.$WMT14/test-full.tgz"
)
TEXTS=(
  "train $EUROPARL training/europarl-v7.de-en.en $EUROPARL training/europarl-v7.de-en.de"
  "train $CRAWL commoncrawl.de-en.en $CRAWL commoncrawl.de-en.de"
  "train $NEWS training/news-commentary-v9.de-en.en $NEWS training/news-commentary-v9.de-en.de"
  "valid wmt13-test.tgz test/newstest2013-src.en.sgm wmt13-test.tgz test/newstest2013-src.de.sgm"
  "test test-full.tgz test-full/newstest2014-deen-src.en.sgm test-full.tgz test-full/newstest2014-deen-ref.de.sgm"
)
TOKENIZE=() LONGEST=250 RATIO=1.5 MERGES=${MERGES:-32000}
SEARCH=(--beam 4 --lenpen 0.6) # Vaswani et al. 2017, section 6.1
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
main "$@"
