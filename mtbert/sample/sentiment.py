"""Movie-review sentences whose level (0 to 4) depends on how their parts are put together.

A clause has a value in [-2, 2]: its word's strength, changed by an intensifier or turned by a negation. Two clauses are
joined so that one outweighs the other ("A, but B" and "although A, B" follow B). The level is the rounded value of the
whole, so that the same words may stand at several levels.
"""

from mtbert.sample.draw import Draw
from mtbert.sample.lexicon import words

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


def sentiment_row(draw: Draw) -> tuple[str, int]:
    """A sentence and its level; levels come about as often as in the Stanford Sentiment Treebank."""
    target = draw.weighted([(0, 13), (1, 26), (2, 19), (3, 27), (4, 15)])
    while True:
        text, value = draw.weighted(_FORMS)(draw)
        # Readers disagree: one in four feels almost a level above or below what is written.
        if level(value + draw.pick((-0.9, 0, 0, 0, 0, 0, 0, 0.9))) == target:
            return text[0].upper() + text[1:] + " .", target


def level(value: float) -> int:
    """The level of a value in [-2, 2]; half-way values do not occur."""
    return sum(value > bound for bound in (-1.5, -0.5, 0.5, 1.5))


def _predicate(draw: Draw) -> Clause:
    """What follows the subject, and its value."""
    strength = draw.pick((-2, -2, -1, -1, 0, 1, 1, 2, 2))
    word, form = draw.pick(ADJECTIVES[strength]), draw.below(100)
    if abs(strength) == 1 and form < 15:
        return f"is not {word}", -strength
    if abs(strength) == 1 and form < 30:
        return f"is {draw.pick(INTENSIFIERS)} {word}", 1.6 * strength
    return f"is {word}", strength


def _film(draw: Draw) -> str:
    return f"{draw.pick(SURNAMES)} 's {draw.pick(GENRES)}" if draw.chance(60) else f"this {draw.pick(GENRES)}"


def _subject(draw: Draw) -> str:
    return _film(draw) if draw.chance(60) else f"the {draw.pick(ASPECTS)} of this {draw.pick(GENRES)}"


def _single(draw: Draw) -> Clause:
    text, value = _predicate(draw)
    return f"{_subject(draw)} {text}", value


def _neutral(draw: Draw) -> Clause:
    fact = draw.pick(FACTS).format(m=80 + 5 * draw.below(20), place=draw.pick(PLACES))
    return f"{_film(draw)} {fact}", 0.0


def _two(draw: Draw) -> tuple[str, float, str, float]:
    """A clause about the film and one about an aspect of it."""
    (one, first), (two, second) = _predicate(draw), _predicate(draw)
    return f"{_film(draw)} {one}", first, f"the {draw.pick(ASPECTS)} {two}", second


def _both(draw: Draw) -> Clause:
    one, first, two, second = _two(draw)
    return f"{one} and {two}", (first + second) / 2.1


def _but(draw: Draw) -> Clause:
    one, first, two, second = _two(draw)
    return f"{one} , but {two}", 0.1 * first + 0.9 * second


def _although(draw: Draw) -> Clause:
    one, first, two, second = _two(draw)
    return f"although {one} , {two}", 0.1 * first + 0.9 * second


_FORMS = [(_single, 76), (_neutral, 5), (_both, 8), (_but, 7), (_although, 4)]
