#!/usr/bin/env bash
# WMT16 Romanian to English, the text of Lee et al. 2018: Europarl v8 and SETIMES, 40,000 merges, newsdev2016 to validate.
# ROMANIAN=comma writes s and t with a comma below where old code pages left a cedilla; plain: all letters without marks, as
# Sennrich et al. 2016 do with Romanian sources; none: as the text stands.
#   bash examples/wmt16_ro_en/run.sh [STEP...]        --help names the steps
SOURCE=ro TARGET=en SIZE=${SIZE:-wmt16_ro_en}
WMT16=data.statmt.org/wmt16/translation-task EUROPARL=training-parallel-ep-v8.tgz
OPUS=SETIMES/v2/moses/en-ro.txt.zip
ARCHIVES=(
  "$EUROPARL https://$WMT16/$EUROPARL http://$WMT16/$EUROPARL"
  "setimes.zip https://object.pouta.csc.fi/OPUS-$OPUS https://opus.nlpl.eu/download.php?f=$OPUS"
  "wmt16-dev.tgz https://$WMT16/dev.tgz http://$WMT16/dev.tgz"
  "wmt16-test.tgz https://$WMT16/test.tgz http://$WMT16/test.tgz"
)
TEXTS=(
  "train $EUROPARL training-parallel-ep-v8/europarl-v8.ro-en.ro $EUROPARL training-parallel-ep-v8/europarl-v8.ro-en.en"
  "train setimes.zip SETIMES*.en-ro.ro setimes.zip SETIMES*.en-ro.en"
  "valid wmt16-dev.tgz dev/newsdev2016-roen-src.ro.sgm wmt16-dev.tgz dev/newsdev2016-roen-ref.en.sgm"
  "test wmt16-test.tgz test/newstest2016-roen-src.ro.sgm wmt16-test.tgz test/newstest2016-roen-ref.en.sgm"
)
case ${ROMANIAN:=comma} in
  comma | plain) TOKENIZE=(--romanian "$ROMANIAN") ;;
  none) TOKENIZE=() ;;
  *) echo "run.sh: ROMANIAN is comma, plain or none, not $ROMANIAN" >&2 && exit 2 ;;
esac
LONGEST=250 RATIO=1.5 MERGES=${MERGES:-40000}
SEARCH=(--beam 4 --lenpen 0.6)
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
main "$@"
