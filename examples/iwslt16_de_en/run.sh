#!/usr/bin/env bash
# IWSLT16 German to English, the corpus of Gu et al. 2018 and Lee et al. 2018: 40,000 merges, tst2013 to validate (their
# figures are of tst2013), tst2014 to test. No filter is known of them: pairs of up to 250 tokens stay.
# YEAR=2017: the release of 2017 from GitHub, where Google Drive does not serve that of 2016; its training text is larger.
#   bash examples/iwslt16_de_en/run.sh [STEP...]        --help names the steps
SOURCE=de TARGET=en SIZE=${SIZE:-iwslt16_de_en}
DRIVE="https://drive.usercontent.google.com/download?confirm=t&export=download&id="
WIT3=https://raw.githubusercontent.com/hlt-mt/WIT3/master/archive/2017-01-trnted/texts
case ${YEAR:=2016} in
  2016)
    ARCHIVES=("2016-01.tgz ${DRIVE}1l5y6Giag9aRPwGtuZHswh3w5v3qEz8D8 https://wit3.fbk.eu/archive/2016-01.tgz")
    DE=2016-01.tgz EN=2016-01.tgz IN='2016-01/texts/de/en/de-en.tgz!' EN_PAIR=de-en
    ;;
  2017)
    ARCHIVES=("de-en.tgz $WIT3/de/en/de-en.tgz" "en-de.tgz $WIT3/en/de/en-de.tgz")
    DE=de-en.tgz EN=en-de.tgz IN='' EN_PAIR=en-de
    ;;
  *) echo "run.sh: YEAR is 2016 or 2017, not $YEAR" >&2 && exit 2 ;;
esac
TEXTS=(
  "train $DE ${IN}de-en/train.tags.de-en.de $DE ${IN}de-en/train.tags.de-en.en"
  "valid $DE ${IN}de-en/IWSLT*.TED.tst2013.de-en.de.xml $EN ${IN}$EN_PAIR/IWSLT*.TED.tst2013.$EN_PAIR.en.xml"
  "test $DE ${IN}de-en/IWSLT*.TED.tst2014.de-en.de.xml $EN ${IN}$EN_PAIR/IWSLT*.TED.tst2014.$EN_PAIR.en.xml"
)
TOKENIZE=() LONGEST=250 RATIO=250 MERGES=${MERGES:-40000} SEARCH=(--beam 4)
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"
main "$@"
