"""Sentence pairs with a similarity from 0 to 5: two descriptions of one scene, with some of its parts changed.

Similarity is 5 minus the cost of the changes. Omitting the place costs least, then another place, then another agent or
object; a negation and swapping agent and object cost most, although they keep nearly every word and hardly change a cosine
of mean embeddings. Synonyms cost nothing.
"""

from dataclasses import dataclass, replace

from mtbert.sample.lexicon import words
from mtbert.sample.rng import PortableRandom

# With `/` between synonyms.
AGENTS = words("""
    man/guy|woman/lady|boy|girl|baby|doctor|soldier|teacher|farmer|nurse|clown|dog|cat|horse|monkey|tiger|bear|duck
""")
# Verbs and the objects that go with them.
KINDS = (
    (words("cutting|peeling|frying|washing|eating|buying"), words("onion|potato|carrot|tomato|apple|banana|fish|egg")),
    (words("playing|tuning|repairing|carrying|selling"), words("guitar|violin|piano|flute|drum|trumpet|harp")),
    (words("riding|pushing|painting|stealing|cleaning"), words("bicycle|car|boat|scooter|truck|bus|tractor")),
    (words("throwing|catching|kicking|dropping|holding"), words("ball|stick|shoe|hat|book|bottle|rope|cup")),
)
# What one agent does to another; agent and object can be swapped.
ACTIONS = words("chasing|following|biting|feeding|hugging|watching|carrying|pushing|rescuing|teasing")
PLACES = words("""
    in the kitchen|on the beach|in the park|in the snow|on a stage|in the garden|near a river|at the station|in the forest
    behind the house|on a boat|under a tree|on the roof|in the rain|at school|on a bridge
""")


@dataclass(frozen=True)
class Scene:
    """Who does what to what or whom, and where.

    Attributes:
        kind: index of verbs and objects; None where the object is another agent.
        agent, verb, object, place: indices; place is None if there is none.
        negated: whether the sentence says "not".
    """

    kind: int | None
    agent: int
    verb: int
    object: int
    place: int | None
    negated: bool = False


def similarity_row(rng: PortableRandom) -> tuple[tuple[str, str], float]:
    """A pair of sentences and their similarity in [0, 5], in steps of 0.2 like a mean over annotators."""
    while True:
        scene = _scene(rng)
        changed, cost = _unrelated(rng, scene), 4.8
        if not rng.chance(5):
            changed, cost = scene, 0.0
            for _ in range(rng.weighted([(0, 10), (1, 55), (2, 35)])):
                changed, more = _change(rng, changed, rng.weighted(_CHANGES))
                cost += more  # a second negation cancels the first and its cost
        one, two = _sentence(rng, scene), _sentence(rng, changed)
        if one != two:
            return ((two, one) if rng.chance(50) else (one, two)), _step(rng, 5 - cost)


_CHANGES = [("place", 45), ("agent", 10), ("verb", 7), ("object", 10), ("swap", 6), ("negate", 65)]


def _verbs(scene: Scene) -> tuple[str, ...]:
    return ACTIONS if scene.kind is None else KINDS[scene.kind][0]


def _scene(rng: PortableRandom) -> Scene:
    place = rng.below(len(PLACES)) if rng.chance(50) else None
    agent = rng.below(len(AGENTS))
    if rng.chance(30):
        return Scene(None, agent, rng.below(len(ACTIONS)), rng.other(range(len(AGENTS)), agent), place)
    kind = rng.below(len(KINDS))
    return Scene(kind, agent, rng.below(len(KINDS[kind][0])), rng.below(len(KINDS[kind][1])), place)


def _unrelated(rng: PortableRandom, scene: Scene) -> Scene:
    """A scene whose parts all differ from those of `scene`."""
    while True:
        new = _scene(rng)
        agents = {new.agent} if new.kind is not None else {new.agent, new.object}
        if new.kind != scene.kind and new.place != scene.place and not agents & {scene.agent, scene.object}:
            return new


def _change(rng: PortableRandom, scene: Scene, name: str) -> tuple[Scene, float]:
    """The scene after the named change, and the cost of the change; a swap where the object is no agent is a negation instead."""
    if name == "place":
        if scene.place is None:
            return replace(scene, place=rng.below(len(PLACES))), 0.2
        if rng.chance(50):
            return replace(scene, place=None), 0.2
        return replace(scene, place=rng.other(range(len(PLACES)), scene.place)), 0.4
    if name == "agent":
        taken = [scene.agent] if scene.kind is not None else [scene.agent, scene.object]
        return replace(scene, agent=rng.other(range(len(AGENTS)), *taken)), 0.8
    if name == "verb":
        return replace(scene, verb=rng.other(range(len(_verbs(scene))), scene.verb)), 1.0
    if name == "object":
        if scene.kind is None:
            return replace(scene, object=rng.other(range(len(AGENTS)), scene.agent, scene.object)), 0.8
        return replace(scene, object=rng.other(range(len(KINDS[scene.kind][1])), scene.object)), 0.8
    if name == "swap" and scene.kind is None:
        return replace(scene, agent=scene.object, object=scene.agent), 1.6
    return replace(scene, negated=not scene.negated), 2.2 if not scene.negated else -2.2


def _step(rng: PortableRandom, value: float) -> float:
    """The value with annotators' noise of up to 0.2, as a multiple of 0.2 in [0, 5]."""
    steps = round(value * 5) + rng.weighted([(-1, 1), (0, 2), (1, 1)])
    return min(max(steps, 0), 25) / 5


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _sentence(rng: PortableRandom, scene: Scene) -> str:
    what = rng.pick(AGENTS[scene.object].split("/")) if scene.kind is None else KINDS[scene.kind][1][scene.object]
    who, no = _article(rng.pick(AGENTS[scene.agent].split("/"))), "not " if scene.negated else ""
    text = f"{who} is {no}{_verbs(scene)[scene.verb]} {_article(what)}"
    if scene.place is not None:
        where = PLACES[scene.place]
        text = f"{where}, {text}" if rng.chance(20) else f"{text} {where}"
    return text[0].upper() + text[1:] + "."
