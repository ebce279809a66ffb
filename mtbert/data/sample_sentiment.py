"""Movie-review sentences whose level (0 to 4) depends on how their parts are put together.

A clause has a value in [-2, 2]: its word's strength, changed by an intensifier, a downtoner, a negation or a hedge. Two
clauses are joined so that one outweighs the other ("A, but B" and "although A, B" follow B). The level is the rounded
value of the whole, so that the same words may stand at several levels.
"""

from mtbert.data.draw import Draw
from mtbert.data.lexicon import words

Clause = tuple[str, float]

ADJECTIVES: dict[int, tuple[str, ...]] = {
    2: words("""
        brilliant|superb|magnificent|breathtaking|dazzling|masterful|extraordinary|exhilarating
        unforgettable|stunning|flawless|glorious|triumphant|mesmerizing|outstanding|phenomenal|sublime
        exquisite|spectacular|electrifying|marvelous|wondrous|remarkable|astonishing|majestic|impeccable
        transcendent|luminous|riveting
    """),
    1: words("""
        pleasant|charming|likable|amusing|engaging|watchable|solid|decent|warm|tender|clever|witty|enjoyable
        sincere|lively|agreeable|graceful|honest|thoughtful|appealing|refreshing|playful|competent|smart
        breezy|funny|sweet|polished|endearing|inventive|entertaining|absorbing|capable|heartfelt|nimble
        diverting|satisfying|fresh
    """),
    -1: words("""
        dull|predictable|uneven|clumsy|bland|thin|forgettable|slow|sluggish|contrived|shallow|derivative
        overlong|stale|flat|tired|muddled|awkward|sentimental|wooden|repetitive|formulaic|listless
        pedestrian|disjointed|strained|tepid|underwritten|murky|routine|sloppy|hollow|tiresome|uninspired
        meandering|stilted|choppy|superficial
    """),
    -2: words("""
        awful|dreadful|unbearable|atrocious|terrible|excruciating|abysmal|wretched|horrendous|insufferable
        appalling|disastrous|repulsive|unwatchable|idiotic|moronic|ghastly|hideous|painful|pathetic
        loathsome|putrid|deplorable|execrable|woeful|laughable|inept|mind-numbing|disgraceful
    """),
}
VERB_PHRASES: dict[int, tuple[str, ...]] = {
    2: (
        "soars from the first frame to the last",
        "takes your breath away",
        "leaves you speechless",
        "deserves every prize there is",
        "burns itself into memory",
        "knocks it out of the park",
        "ranks among the finest of the decade",
    ),
    1: (
        "holds your attention",
        "earns its laughs",
        "works better than it should",
        "leaves a smile behind",
        "hits most of its marks",
        "rewards a patient viewer",
        "grows on you",
        "has its heart in the right place",
        "keeps things moving",
    ),
    -1: (
        "drags in the middle",
        "runs out of ideas",
        "loses its way",
        "never finds its rhythm",
        "leaves little behind",
        "falls a bit short",
        "goes through the motions",
        "tests your patience",
        "wears out its welcome",
    ),
    -2: (
        "collapses into a complete mess",
        "insults its audience",
        "sinks without a trace",
        "made me want to leave the theater",
        "ruins whatever it touches",
        "fails on every level",
        "is a total waste of time",
    ),
}
FACTS = (
    "runs for about {m} minutes",
    "is set in {place}",
    "was shot in {place} on a small budget",
    "opens and closes with the same shot of {place}",
    "follows {n} strangers through {place}",
    "is told mostly in flashback",
    "is based on a novel from {place}",
    "switches between {place} and {place2}",
    "arrives {n} months after its premiere in {place}",
    "contains fewer words than a radio spot",
)
ASPECTS = words("""
    acting|script|pacing|dialogue|soundtrack|photography|editing|plot|ending|opening|lead performance
    supporting cast|direction|humor|romance|premise|story|climax|set design|narration
    chemistry between the leads|final act|first hour|villain|hero|central mystery|animation|choreography
    costume work|action|satire|drama|storytelling|tone|score|atmosphere|character work|second half
    mother's role|courtroom scene|chase through the city|camera work
""")
GENRES = words("""
    thriller|comedy|drama|western|musical|documentary|romance|horror film|biopic|heist film|war film
    family film|spy caper|road movie|fantasy|crime saga|period piece|cartoon|melodrama|sports movie|satire
    sequel|remake|fable|courtroom drama|coming-of-age story|ghost story|science fiction film|noir|travelogue
""")
SURNAMES = words("""
    Aldana|Berger|Castell|Dorsey|Ekholm|Farrow|Galanis|Hoshino|Ibarra|Jansen|Kessler|Lindqvist|Moreau
    Navarro|Okafor|Petrov|Quimby|Rosario|Sandoval|Tanaka|Ulrich|Vasquez|Whitlock|Ximenes|Yamada|Zeller
    Abbott|Brandt|Corelli|Duval|Engel|Fontaine|Grimaldi|Hartley|Ivers|Juarez|Kovacs|Lambert|Mercer|Norling
    Ostrom|Pruitt|Ridley|Soto|Thorne
""")
PLACES = words("""
    Lisbon|Montreal|Havana|Naples|rural Iowa|Glasgow|Osaka|Dakar|Buenos Aires|a mining town|Prague|Seoul
    the Alps|a fishing village|Chicago|Tangier|postwar Berlin|Calcutta|the Yukon|Oslo|a boarding school
    Manila|Kansas
""")
INTENSIFIERS = ("truly", "deeply", "incredibly", "thoroughly", "remarkably", "exceptionally", "utterly", "endlessly")
DOWNTONERS = ("somewhat", "mildly", "a little", "slightly", "faintly", "rather less than", "only intermittently")
EXPECTERS = ("fans of the director", "most critics", "the trailers", "my friends", "the festival crowd", "the posters")


def sentiment_row(draw: Draw) -> tuple[str, int]:
    """A sentence and its level; levels come about as often as in the Stanford Sentiment Treebank."""
    target = draw.weighted([(0, 13), (1, 26), (2, 19), (3, 27), (4, 15)])
    while True:
        text, value = draw.weighted(_FORMS)(draw)
        if level(value) == target and len(text.split()) <= 24:
            return text[0].upper() + text[1:] + " .", target


def level(value: float) -> int:
    """The level of a value in [-2, 2]; half-way values do not occur."""
    return sum(value > bound for bound in (-1.5, -0.5, 0.5, 1.5))


def _subject(draw: Draw) -> str:
    form = draw.below(5)
    if form < 2:
        return _film(draw)
    if form == 2:
        return f"the {draw.pick(ASPECTS)} of this {draw.pick(GENRES)}"
    return f"the {draw.pick(ASPECTS)}"


def _film(draw: Draw) -> str:
    return f"{draw.pick(SURNAMES)} 's latest {draw.pick(GENRES)}" if draw.chance(50) else f"this {draw.pick(GENRES)}"


def _strength(draw: Draw) -> int:
    return draw.pick((-2, -1, -1, 1, 1, 2))


def _word(draw: Draw, strength: int) -> str:
    return draw.pick(ADJECTIVES[strength])


def _predicate(draw: Draw) -> Clause:
    """What follows the subject, and its value."""
    form, strength = draw.below(100), _strength(draw)
    word = _word(draw, strength)
    sign = 1 if strength > 0 else -1
    if form < 22:
        return f"is {word}", strength
    if form < 37:
        return draw.pick(VERB_PHRASES[strength]), strength
    if form < 48:
        return f"is {draw.pick(INTENSIFIERS)} {word}", 1.9 * sign
    if form < 58:
        return f"is {draw.pick(DOWNTONERS)} {word}", 0.45 * strength
    if form < 68:
        return f"is not {word}", {2: -0.6, 1: -1.0, -1: 0.6, -2: 0.2}[strength]
    if form < 75:
        return f"is anything but {word}", {2: -1.8, 1: -1.2, -1: 1.2, -2: 1.4}[strength]
    if form < 81:
        return f"is {draw.pick(('hardly', 'scarcely'))} {word}", {2: -0.7, 1: -1.1, -1: 0.4, -2: 0.3}[strength]
    if form < 87:
        return f"could have been {word}", {2: -1.1, 1: -0.9, -1: 0.6, -2: 0.7}[strength]
    if form < 92:
        return f"is neither {word} nor {_word(draw, strength)}", {2: -0.7, 1: -1.2, -1: 0.7, -2: 0.4}[strength]
    if form < 96:
        good, bad = _word(draw, draw.pick((1, 2))), _word(draw, draw.pick((-1, -2)))
        return (f"is too {bad} to be {good}", -1.3) if sign < 0 else (f"is too {good} to be {bad}", 1.3)
    other = _word(draw, -sign)
    return f"is less {other} than {word}", 0.8 * strength


def _clause(draw: Draw) -> Clause:
    text, value = _predicate(draw)
    return f"{_subject(draw)} {text}", value


def _aside(draw: Draw) -> Clause:
    """A clause about one aspect, to stand beside one about the film."""
    text, value = _predicate(draw)
    return f"the {draw.pick(ASPECTS)} {text}", value


def _fact(draw: Draw) -> str:
    place = draw.pick(PLACES)
    return draw.pick(FACTS).format(
        n=draw.pick(("three", "four", "seven", "eleven")),
        m=80 + 5 * draw.below(20),
        place=place,
        place2=draw.other(PLACES, place),
    )


def _single(draw: Draw) -> Clause:
    text, value = _clause(draw)
    tail = draw.pick(("", "", "from start to finish", "if you ask me", "all the same"))
    fact = f" {_film(draw)} {_fact(draw)} , and" if draw.chance(35) else ""
    return f"{fact} {text} {tail}".strip(), value


def _neutral(draw: Draw) -> Clause:
    return f"{_film(draw)} {_fact(draw)} and {_fact(draw)}", 0.0


def _both(draw: Draw) -> Clause:
    (one, first), (two, second) = _clause(draw), _aside(draw)
    same = first * second > 0
    return f"{one} and {two}", max(first, second, key=abs) if same else (first + second) / 2.1


def _outweighs(weak: float, strong: float) -> float:
    return 0.2 * weak + 0.9 * strong


def _but(draw: Draw) -> Clause:
    (one, first), (two, second) = _clause(draw), _aside(draw)
    return f"{one} , {draw.pick(('but', 'yet', 'and still'))} {two}", _outweighs(first, second)


def _although(draw: Draw) -> Clause:
    (one, first), (two, second) = _clause(draw), _aside(draw)
    word = draw.pick(("although", "even though", "while"))
    if draw.chance(50):
        return f"{word} {one} , {two}", _outweighs(first, second)
    return f"{two} , {word} {one}", _outweighs(first, second)


def _expected(draw: Draw) -> Clause:
    claimed, (text, value) = _strength(draw), _predicate(draw)
    who = draw.pick(EXPECTERS)
    return (
        f"{who} promised a {draw.pick(GENRES)} that feels {_word(draw, claimed)} , and it {text}",
        value - 0.15 * claimed,
    )


def _condition(draw: Draw) -> Clause:
    strength, subject = _strength(draw), _subject(draw)
    other = -1 if strength > 0 else 1
    return (
        f"{subject} would be {_word(draw, strength)} if the {draw.pick(ASPECTS)} were not so {_word(draw, other)}",
        {2: -0.4, 1: -0.8, -1: 0.7, -2: 0.4}[strength],
    )


def _says_who(draw: Draw) -> Clause:
    claimed, (text, value) = _strength(draw), _clause(draw)
    return f"{draw.pick(EXPECTERS)} called it {_word(draw, claimed)} , but {text}", _outweighs(0.3 * claimed, value)


_FORMS = [
    (_single, 30),
    (_neutral, 4),
    (_both, 14),
    (_but, 18),
    (_although, 16),
    (_expected, 7),
    (_condition, 5),
    (_says_who, 6),
]
