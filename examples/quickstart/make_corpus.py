#!/usr/bin/env python3
"""Write a small English-German corpus in which one source has several right targets. Nothing is downloaded.

Names and formats of dates, times, units, currencies, territories and languages are Unicode CLDR data, read through
Babel; numbers in words come from num2words. The sentence frames below join them. German offers each sentence in several
word orders, and dates, times and numbers in several forms; a training pair takes one of them at random, by the weights
below. That is the multi-modality a non-autoregressive model suffers from, and that distillation removes.

    python make_corpus.py --out DIR [--train 20000] [--valid 300] [--test 600] [--seed 1]

DIR gets {train,valid,test}.{en,de} (raw text, one sentence a line) and corpus.json (counts, versions, sha256 of each
file). corpus.json is removed first and written last: where it stands, the corpus is whole. The same seed and the same
versions of Babel and num2words give the same bytes.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import itertools
import json
import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time
from babel.numbers import format_currency
from babel.units import format_unit
from num2words import num2words

# Ways to say one thing, each with its share. The shares are uneven, so that the best output is well defined and a beam
# search settles on it. The rarer word orders share the places of their words, so that at many places they outvote the
# most frequent one: picking each word by itself gives `Das Treffen findet am Treffen ...`.
Ways = dict[str, float]

SPLITS = {"train": 20_000, "valid": 300, "test": 600}  # pairs; the figures of the quickstart hold for these
SHARE_OF_REPEATS = 0.12  # of the training pairs: a source that occurs a second time, with another right target
LEAST_TO_AVERAGE = 1_000  # training pairs; of fewer an average says nothing
LEAST_SHARE_AMBIGUOUS = 0.30  # of the training sources: those with two or more right targets
WORDS_A_LINE = (6.0, 14.0)  # bounds of the average; whole words, numbers and marks

EUROPE = "NO SE DK FI IS IE FR ES PT IT AT BE PL CZ HU RO BG GR HR LV".split()
WORLD = "CN JP IN TH VN KR MX BR AR CL PE CO CA AU EG MA KE NG CU NP".split()
TERRITORIES = EUROPE + WORLD  # those whose German name takes no article
LANGUAGES = "no sv da fi fr es pt it pl cs hu ro bg el ru zh ja ar tr en".split()
CURRENCIES = "EUR USD GBP CHF JPY SEK INR TRY".split()

# English noun, German article in nominative and accusative, German noun
EVENTS = (
    "meeting das das Treffen|concert das das Konzert|conference die die Konferenz|wedding die die Hochzeit|"
    "party die die Feier|match das das Spiel|lecture der den Vortrag|exam die die Prüfung|course der den Kurs|"
    "festival das das Festival|exhibition die die Ausstellung|race das das Rennen|auction die die Auktion"
)
WORKS = (
    "book das das Buch|film der den Film|song das das Lied|article der den Artikel|poem das das Gedicht|"
    "novel der den Roman|report der den Bericht|play das das Stück|interview das das Interview"
)
VEHICLES = "train der den Zug|bus der den Bus|ferry die die Fähre|plane das das Flugzeug|ship das das Schiff"
JOURNEYS = "trip die die Reise|flight der den Flug|drive die die Fahrt|crossing die die Überfahrt|tour die die Tour"
PARCELS = "ticket die die Fahrkarte|flight der den Flug|parcel das das Paket|letter der den Brief|call der den Anruf"
CARGO = (
    "rice Reis|wheat Weizen|coffee Kaffee|sugar Zucker|steel Stahl|wood Holz|tea Tee|salt Salz|paper Papier|"
    "cotton Baumwolle|butter Butter|corn Mais"
)


@dataclass(frozen=True)
class Entry:
    """One sentence: the English source and every right German target with its probability (they sum to 1)."""

    source: str
    targets: Ways


@dataclass(frozen=True)
class Slot:
    """One meaning that fills a frame: English text, and the German ways to say it."""

    en: str
    de: Ways


def draw(ways: Ways, rng: random.Random) -> str:
    """One way at random, by share."""
    return rng.choices(list(ways), weights=list(ways.values()))[0]


def fill(frames: Ways, **slots: Ways) -> Ways:
    """Every way of every frame with every way of its slots; shares multiply, equal texts are added up."""
    out: Ways = {}
    for frame, frame_share in frames.items():
        for picks in itertools.product(*(ways.items() for ways in slots.values())):
            share, texts = frame_share, {}
            for name, (text, pick_share) in zip(slots, picks, strict=True):
                share, texts[name] = share * pick_share, text
            text = frame.format(**texts)
            text = text[0].upper() + text[1:]
            out[text] = out.get(text, 0.0) + share
    return out


def plain(text: str) -> str:
    """CLDR writes narrow and no-break spaces; the corpus has ordinary ones."""
    return " ".join(text.split())


# --- meanings ------------------------------------------------------------------------------------------------------


def noun(table: str, rng: random.Random) -> tuple[str, str, str]:
    """English noun, German nominative and accusative with article."""
    en, nominative, accusative, de = rng.choice(table.split("|")).split()
    return en, f"{nominative} {de}", f"{accusative} {de}"


def territory(rng: random.Random) -> tuple[str, str]:
    """A country in English and German (CLDR territories)."""
    code = rng.choice(TERRITORIES)
    return Locale("en").territories[code], Locale("de").territories[code]


def language(rng: random.Random) -> tuple[str, str]:
    """A language in English and German (CLDR languages)."""
    code = rng.choice(LANGUAGES)
    return Locale("en").languages[code], Locale("de").languages[code]


def in_words(number: int) -> str:
    """A cardinal from 2 up, in German words."""
    return num2words(number, lang="de")


def digits_or_words(number: int, thing: str) -> Ways:
    """A counted thing whose CLDR text begins with its number, in digits or in words."""
    digits = str(number)
    assert thing.startswith(digits + " "), thing
    return {thing: 0.85, in_words(number) + thing[len(digits) :]: 0.15}


def date(rng: random.Random) -> Slot:
    """A day of a year without the year: `March 5`, `am 5. März`, `am fünften März`."""
    day = datetime.date(2024, 1, 1) + datetime.timedelta(days=rng.randrange(366))
    ordinal = num2words(day.day, lang="de", to="ordinal") + "n"
    month = format_date(day, "MMMM", locale="de")
    long = format_skeleton("MMMMd", day, locale="de")
    ways = {f"am {long}": 0.80, f"am {ordinal} {month}": 0.20}
    return Slot(f"on {format_skeleton('MMMMd', day, locale='en')}", ways)


def month_of_year(rng: random.Random) -> Slot:
    """A month with its year: `in March 2019`, `im März 2019`."""
    day = datetime.date(rng.randint(2000, 2024), rng.randint(1, 12), 1)
    en, de = (format_skeleton("yMMMM", day, locale=locale) for locale in ("en", "de"))
    return Slot(f"in {en}", {f"im {de}": 1.0})


def spoken_time(moment: datetime.time) -> str:
    """A quarter of an hour as German speakers say it: 15:45 is `Viertel vor vier`."""
    hour, following = (in_words((moment.hour + add - 1) % 12 + 1) for add in (0, 1))
    full_hour = "ein Uhr" if hour == "eins" else f"{hour} Uhr"
    return {0: full_hour, 15: f"Viertel nach {hour}", 30: f"halb {following}", 45: f"Viertel vor {following}"}[
        moment.minute
    ]


def clock(rng: random.Random) -> Slot:
    """A time of day: `at 3:15 PM`, `um 15.15 Uhr`, `nachmittags um Viertel nach drei`.

    The full stop is as good German as the colon, and the Moses detokeniser would write `15: 15`.
    """
    moment = datetime.time(rng.randint(7, 22), rng.choice((0, 15, 30, 45)))
    spoken = spoken_time(moment)
    part = format_time(moment, "BBBB", locale="de")
    ways = {
        f"um {format_time(moment, 'HH.mm', locale='de')} Uhr": 0.75,
        f"{part} um {spoken}": 0.25,
    }
    return Slot(f"at {plain(format_time(moment, 'short', locale='en'))}", ways)


def duration(rng: random.Random) -> Slot:
    """Hours and minutes: `5 hours and 20 minutes`."""
    hours, minutes = rng.randint(2, 20), rng.randrange(5, 60, 5)
    texts = {
        locale: [
            plain(format_unit(n, f"duration-{unit}", locale=locale))
            for n, unit in ((hours, "hour"), (minutes, "minute"))
        ]
        for locale in ("en", "de")
    }
    (hour, minute), spoken = texts["de"], [in_words(hours), in_words(minutes)]
    ways = {
        f"{hour} und {minute}": 0.85,
        f"{spoken[0]} {hour.split()[1]} und {spoken[1]} {minute.split()[1]}": 0.15,
    }
    return Slot(" and ".join(texts["en"]), ways)


def price(rng: random.Random) -> Slot:
    """An amount of money: `25 euros`."""
    number, code = rng.randint(2, 99), rng.choice(CURRENCIES)
    en, de = (
        plain(format_currency(number, code, locale=locale, format_type="name", currency_digits=False, format="#,##0"))
        for locale in ("en", "de")
    )
    return Slot(en, digits_or_words(number, de))


def load(rng: random.Random) -> Slot:
    """So much of a cargo: `25 tonnes of rice`."""
    number, unit = rng.randint(2, 99), rng.choice(("mass-tonne", "mass-kilogram"))
    what_en, what_de = rng.choice(CARGO.split("|")).split()
    en, de = (plain(format_unit(number, unit, locale=locale)) for locale in ("en", "de"))
    return Slot(f"{en} of {what_en}", digits_or_words(number, f"{de} {what_de}"))


# --- frames --------------------------------------------------------------------------------------------------------


def event(rng: random.Random) -> Entry:
    """An event takes place somewhere on some day at some time."""
    (en, subject, _), (where_en, where), day, time = noun(EVENTS, rng), territory(rng), date(rng), clock(rng)
    frames = {
        "{subject} findet {day} {time} in {where} statt.": 0.50,
        "{subject} findet in {where} {day} {time} statt.": 0.27,
        "in {where} findet {subject} {day} {time} statt.": 0.23,
    }
    order = rng.choice(("The {0} in {1} takes place {2} {3}.", "The {0} takes place in {1} {2} {3}."))
    ways = fill(frames, subject={subject: 1.0}, where={where: 1.0}, day=day.de, time=time.de)
    return Entry(order.format(en, where_en, day.en, time.en), ways)


def meeting(rng: random.Random) -> Entry:
    """An event begins on some day, or at some time."""
    (en, subject, _), (where_en, where), when = noun(EVENTS, rng), territory(rng), rng.choice((date, clock))(rng)
    frames = {
        "{subject} in {where} beginnt {when}.": 0.50,
        "{subject} beginnt {when} in {where}.": 0.27,
        "{when} beginnt {subject} in {where}.": 0.23,
    }
    ways = fill(frames, subject={subject: 1.0}, where={where: 1.0}, when=when.de)
    return Entry(f"The {en} in {where_en} begins {when.en}.", ways)


def departure(rng: random.Random) -> Entry:
    """A train, ship or plane leaves for a country on some day at some time."""
    (en, subject, _), (where_en, where), day, time = noun(VEHICLES, rng), territory(rng), date(rng), clock(rng)
    frames = {
        "{subject} nach {where} startet {day} {time}.": 0.50,
        "{subject} nach {where} startet {time} {day}.": 0.27,
        "{time} startet {subject} nach {where} {day}.": 0.23,
    }
    ways = fill(frames, subject={subject: 1.0}, where={where: 1.0}, day=day.de, time=time.de)
    return Entry(f"The {en} to {where_en} leaves {day.en} {time.en}.", ways)


def publication(rng: random.Random) -> Entry:
    """A work appeared in a language, in a country, in a month."""
    (en, subject, _), (where_en, where), (tongue_en, tongue) = noun(WORKS, rng), territory(rng), language(rng)
    month = month_of_year(rng)
    frames = {
        "{subject} erschien {month} in {where} auf {tongue}.": 0.50,
        "{subject} erschien in {where} {month} auf {tongue}.": 0.27,
        "in {where} erschien {subject} {month} auf {tongue}.": 0.23,
    }
    ways = fill(frames, subject={subject: 1.0}, where={where: 1.0}, tongue={tongue: 1.0}, month=month.de)
    return Entry(f"The {en} was published in {tongue_en} in {where_en} {month.en}.", ways)


def cost(rng: random.Random) -> Entry:
    """What sending or going to a country costs."""
    (en, subject, thing), (where_en, where), amount = noun(PARCELS, rng), territory(rng), price(rng)
    frames = {  # the first is the shortest, and a beam search that divides scores by length prefers the others
        "{subject} nach {where} kostet {amount}.": 0.56,
        "man zahlt {amount} für {thing} nach {where}.": 0.24,
        "für {thing} nach {where} zahlt man {amount}.": 0.20,
    }
    ways = fill(frames, subject={subject: 1.0}, thing={thing: 1.0}, where={where: 1.0}, amount=amount.de)
    return Entry(f"The {en} to {where_en} costs {amount.en}.", ways)


def travel_time(rng: random.Random) -> Entry:
    """How long a journey to a country takes."""
    (en, subject, thing), (where_en, where), time = noun(JOURNEYS, rng), territory(rng), duration(rng)
    frames = {  # the first is the shortest, and a beam search that divides scores by length prefers the others
        "{subject} nach {where} dauert {time}.": 0.56,
        "man braucht {time} für {thing} nach {where}.": 0.24,
        "für {thing} nach {where} braucht man {time}.": 0.20,
    }
    ways = fill(frames, subject={subject: 1.0}, thing={thing: 1.0}, where={where: 1.0}, time=time.de)
    return Entry(f"The {en} to {where_en} takes {time.en}.", ways)


def trade(rng: random.Random) -> Entry:
    """One country sells so much of something to another."""
    (seller_en, seller), (buyer_en, buyer), cargo = territory(rng), territory(rng), load(rng)
    while buyer == seller:
        buyer_en, buyer = territory(rng)
    frames = {
        "{seller} verkauft {cargo} an {buyer}.": 0.50,
        "{seller} verkauft an {buyer} {cargo}.": 0.27,
        "an {buyer} verkauft {seller} {cargo}.": 0.23,
    }
    ways = fill(frames, seller={seller: 1.0}, buyer={buyer: 1.0}, cargo=cargo.de)
    return Entry(f"{seller_en} sells {cargo.en} to {buyer_en}.", ways)


KINDS: tuple[Callable[[random.Random], Entry], ...] = (
    event, meeting, departure, publication, cost, travel_time, trade
)  # fmt: skip


# --- corpus --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One line of a split: the source with all its right targets, and the one that was drawn."""

    entry: Entry
    target: str


Corpus = dict[str, list[Pair]]


def distinct_entries(count: int, rng: random.Random) -> list[Entry]:
    """So many sentences with different sources, every kind as often as the others."""
    found: dict[str, Entry] = {}
    kinds = itertools.cycle(KINDS)
    kind = next(kinds)
    while len(found) < count:
        entry = kind(rng)
        if entry.source not in found:
            found[entry.source] = entry
            kind = next(kinds)
    return rng.sample(list(found.values()), count)


def other_target(pair: Pair, rng: random.Random) -> Pair:
    """The same source with another right target."""
    others = {text: share for text, share in pair.entry.targets.items() if text != pair.target}
    return Pair(pair.entry, draw(others, rng))


def make_corpus(sizes: dict[str, int], seed: int) -> Corpus:
    """All splits; `sizes` counts pairs. Sources of valid and test are in no other split."""
    rng = random.Random(seed)
    repeats = int(sizes["train"] * SHARE_OF_REPEATS)
    pairs = [Pair(entry, draw(entry.targets, rng)) for entry in distinct_entries(sum(sizes.values()) - repeats, rng)]
    held_out = sizes["valid"] + sizes["test"]
    train = pairs[held_out:]
    ambiguous = [pair for pair in train if len(pair.entry.targets) > 1]
    train += [other_target(pair, rng) for pair in rng.sample(ambiguous, repeats)]
    rng.shuffle(train)
    return {"train": train, "valid": pairs[: sizes["valid"]], "test": pairs[sizes["valid"] : held_out]}


def facts(corpus: Corpus) -> dict[str, Any]:
    """What corpus.json and the report say about the pairs. Ambiguous: the grammar gives two or more right targets."""
    targets_seen: dict[str, set[str]] = {}
    for pair in corpus["train"]:
        targets_seen.setdefault(pair.entry.source, set()).add(pair.target)
    entries = {pair.entry.source: pair.entry for pair in corpus["train"]}.values()
    lines = {"en": [pair.entry.source for pair in corpus["train"]], "de": [pair.target for pair in corpus["train"]]}
    return {
        "pairs": {split: len(pairs) for split, pairs in corpus.items()},
        "train_sources": len(entries),
        "share_ambiguous": round(sum(len(entry.targets) > 1 for entry in entries) / len(entries), 4),
        "share_seen_with_several_targets": round(
            sum(len(seen) > 1 for seen in targets_seen.values()) / len(entries), 4
        ),
        "right_targets_a_source": round(sum(len(entry.targets) for entry in entries) / len(entries), 2),
        "share_of_best_target": round(sum(max(entry.targets.values()) for entry in entries) / len(entries), 4),
        "words_a_line": {
            side: round(sum(len(words(line)) for line in text) / len(text), 2) for side, text in lines.items()
        },
        "word_types": {side: len({word for line in text for word in words(line)}) for side, text in lines.items()},
    }


def words(line: str) -> list[str]:
    """Words, numbers and single marks: close to what a Moses tokeniser gives."""
    return re.findall(r"\w+|[^\w\s]", line)


def check(corpus: Corpus, about: dict[str, Any], sizes: dict[str, int]) -> None:
    """Stop with one line where a promise of this file does not hold."""
    sources = {split: {pair.entry.source for pair in pairs} for split, pairs in corpus.items()}
    everything = [pair for pairs in corpus.values() for pair in pairs]
    lines = [line for pair in everything for line in (pair.entry.source, pair.target)]
    low, high = WORDS_A_LINE
    is_small = sizes["train"] < LEAST_TO_AVERAGE
    promises = {
        "every split has the size asked for": about["pairs"] == sizes,
        "no source is in two splits": not any(sources[a] & sources[b] for a, b in itertools.combinations(sources, 2)),
        "no source repeats in valid and test": all(len(sources[s]) == sizes[s] for s in ("valid", "test")),
        "every target is a right one": all(pair.target in pair.entry.targets for pair in everything),
        "the shares of each source's targets sum to 1": all(
            abs(sum(pair.entry.targets.values()) - 1) < 1e-9 for pair in everything
        ),
        "enough sources are ambiguous": is_small or about["share_ambiguous"] >= LEAST_SHARE_AMBIGUOUS,
        "lines are short": is_small or all(low <= mean <= high for mean in about["words_a_line"].values()),
        "lines are clean": all(line == plain(line) == unicodedata.normalize("NFC", line) for line in lines),
    }
    broken = [promise for promise, holds in promises.items() if not holds]
    if broken:
        raise SystemExit(f"make_corpus.py: does not hold: {'; '.join(broken)}")


def write_whole(path: Path, text: str) -> str:
    """Write beside the place, then rename; the sha256 of the bytes."""
    data = text.encode("utf-8")
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(data)
    beside.replace(path)
    return hashlib.sha256(data).hexdigest()


def write_corpus(out: Path, corpus: Corpus, about: dict[str, Any]) -> None:
    """The six text files, then corpus.json, which says that they are whole."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "corpus.json").unlink(missing_ok=True)
    hashes = {}
    for split, pairs in corpus.items():
        for side in ("en", "de"):
            lines = [pair.entry.source if side == "en" else pair.target for pair in pairs]
            hashes[f"{split}.{side}"] = write_whole(out / f"{split}.{side}", "".join(f"{line}\n" for line in lines))
    write_whole(out / "corpus.json", json.dumps({**about, "sha256": hashes}, indent=2, ensure_ascii=False) + "\n")


def report(about: dict[str, Any], corpus: Corpus) -> None:
    """A short account on standard output, with one source and its right targets."""
    for name, value in about.items():
        print(f"{name}: {value}")
    entry = corpus["test"][0].entry
    print(f"for example: {entry.source}")
    for text, share in sorted(entry.targets.items(), key=lambda way: -way[1]):
        print(f"  {share:.2f}  {text}")


def main() -> None:
    """Make, check, write, report."""
    parser = argparse.ArgumentParser(description="Write the quickstart's English-German corpus.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the corpus")
    for split, size in SPLITS.items():
        parser.add_argument(f"--{split}", type=int, default=size, metavar="N", help=f"pairs (default {size})")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of every random choice (default 1)")
    args = parser.parse_args()
    sizes = {split: getattr(args, split) for split in SPLITS}
    if min(sizes.values()) < 1:
        parser.error("every split needs at least one pair")
    corpus = make_corpus(sizes, args.seed)
    about = facts(corpus)
    check(corpus, about, sizes)
    versions = {name: importlib.metadata.version(name) for name in ("babel", "num2words")}
    about |= {"seed": args.seed, "versions": versions}
    try:
        write_corpus(args.out, corpus, about)
    except OSError as error:
        raise SystemExit(f"make_corpus.py: cannot write to {args.out}: {error.strerror}") from None
    report(about, corpus)


if __name__ == "__main__":
    main()
