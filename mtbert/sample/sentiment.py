"""Movie-review sentences whose sentiment level (0 to 4) depends on how their clauses combine.

A clause has a value in [-2, 2]: its adjective's strength, raised by an intensifier or reversed by a negation. Of two joined
clauses one may outweigh the other ("A, but B" and "although A, B" follow B). The level is the rounded value of the
sentence, so the same words occur at several levels.
"""

from mtbert.sample.lexicon import words
from mtbert.sample.rng import PortableRandom

Clause = tuple[str, float]

ADJECTIVES: dict[int, tuple[str, ...]] = {
    2: words("brilliant|superb|wonderful|amazing|excellent"),
    1: words("good|nice|pleasant|likable|charming"),
    0: words("average|ordinary|unremarkable|neither good nor bad"),
    -1: words("dull|weak|bland|slow|boring"),
    -2: words("awful|terrible|horrible|dreadful|atrocious"),
}
INTENSIFIERS = ("very", "really", "extremely", "incredibly")
ASPECTS = words("acting|script|plot|music|ending|story|photography|dialogue|humor|direction|pacing|editing")
GENRES = words("thriller|comedy|drama|western|musical|documentary|romance|cartoon|sequel|remake|film|movie")
SURNAMES = words("""
    Aldana|Berger|Castell|Dorsey|Farrow|Galanis|Hoshino|Ibarra|Jansen|Kessler|Moreau|Navarro|Okafor|Petrov|Rosario|Tanaka
    Vasquez|Whitlock|Yamada|Zeller
""")
PLACES = words("Lisbon|Montreal|Havana|Naples|Glasgow|Osaka|Prague|Seoul|the Alps|Chicago|Berlin|Oslo")
FACTS = ("runs for {m} minutes", "is set in {place}", "was shot in {place}", "is based on a novel from {place}")


def sentiment_row(rng: PortableRandom) -> tuple[str, int]:
    """A sentence and its level; levels are about as frequent as in the Stanford Sentiment Treebank."""
    target = rng.weighted([(0, 13), (1, 26), (2, 19), (3, 27), (4, 15)])
    while True:
        text, value = rng.weighted(_FORMS)(rng)
        # Annotators disagree: one in four is almost a level above or below the value.
        if level(value + rng.pick((-0.9, 0, 0, 0, 0, 0, 0, 0.9))) == target:
            return text[0].upper() + text[1:] + " .", target


def level(value: float) -> int:
    """The level of a value in [-2, 2]; values half-way between levels do not occur."""
    return sum(value > bound for bound in (-1.5, -0.5, 0.5, 1.5))


def _predicate(rng: PortableRandom) -> Clause:
    """What follows the subject, and its value."""
    strength = rng.pick((-2, -2, -1, -1, 0, 1, 1, 2, 2))
    word, form = rng.pick(ADJECTIVES[strength]), rng.below(100)
    if abs(strength) == 1 and form < 15:
        return f"is not {word}", -strength
    if abs(strength) == 1 and form < 30:
        return f"is {rng.pick(INTENSIFIERS)} {word}", 1.6 * strength
    return f"is {word}", strength


def _film(rng: PortableRandom) -> str:
    return f"{rng.pick(SURNAMES)} 's {rng.pick(GENRES)}" if rng.chance(60) else f"this {rng.pick(GENRES)}"


def _subject(rng: PortableRandom) -> str:
    return _film(rng) if rng.chance(60) else f"the {rng.pick(ASPECTS)} of this {rng.pick(GENRES)}"


def _single(rng: PortableRandom) -> Clause:
    text, value = _predicate(rng)
    return f"{_subject(rng)} {text}", value


def _neutral(rng: PortableRandom) -> Clause:
    fact = rng.pick(FACTS).format(m=80 + 5 * rng.below(20), place=rng.pick(PLACES))
    return f"{_film(rng)} {fact}", 0.0


def _two(rng: PortableRandom) -> tuple[str, float, str, float]:
    """A clause about the film and one about an aspect of it."""
    (one, first), (two, second) = _predicate(rng), _predicate(rng)
    return f"{_film(rng)} {one}", first, f"the {rng.pick(ASPECTS)} {two}", second


def _both(rng: PortableRandom) -> Clause:
    one, first, two, second = _two(rng)
    return f"{one} and {two}", (first + second) / 2.1


def _but(rng: PortableRandom) -> Clause:
    one, first, two, second = _two(rng)
    return f"{one} , but {two}", 0.1 * first + 0.9 * second


def _although(rng: PortableRandom) -> Clause:
    one, first, two, second = _two(rng)
    return f"although {one} , {two}", 0.1 * first + 0.9 * second


_FORMS = [(_single, 76), (_neutral, 5), (_both, 8), (_but, 7), (_although, 4)]
