"""Sentence pairs with a similarity from 0 to 5: one scene told twice, with some of its parts changed in between.

Similarity is 5 less what the changes weigh: leaving out a place costs little, another place more, another agent or
object more again, and a denial or an exchange of who acts on whom most of all, though nearly every word stays: a cosine
of mean embeddings hardly sees these. Synonyms cost nothing.
"""

from dataclasses import dataclass, replace

from mtbert.sample.draw import Draw
from mtbert.sample.lexicon import Forms, entities, words

AGENTS: tuple[Forms, ...] = entities("""
    man/guy|woman/lady|boy|girl|baby|doctor|soldier|teacher|farmer|nurse|clown|dog|cat|horse|monkey|tiger|bear|duck
""")
# Verbs and the objects that go with them.
KINDS = (
    (words("cutting|peeling|frying|washing|eating|buying"), words("onion|potato|carrot|tomato|apple|banana|fish|egg")),
    (words("playing|tuning|repairing|carrying|selling"), words("guitar|violin|piano|flute|drum|trumpet|harp")),
    (words("riding|pushing|painting|stealing|cleaning"), words("bicycle|car|boat|scooter|truck|bus|tractor")),
    (words("throwing|catching|kicking|dropping|holding"), words("ball|stick|shoe|hat|book|bottle|rope|cup")),
)
# What one agent does to another: any of these may be turned round.
DEEDS = words("chasing|following|biting|feeding|hugging|watching|carrying|pushing|rescuing|teasing")
PLACES = words("""
    in the kitchen|on the beach|in the park|in the snow|on a stage|in the garden|near a river|at the station|in the forest
    behind the house|on a boat|under a tree|on the roof|in the rain|at school|on a bridge
""")


@dataclass(frozen=True)
class Scene:
    """Who does what to what or whom, and where.

    Attributes:
        kind: index of verbs and objects; None where the object is another agent.
        agent, verb, object, place: indices; place is None where it is not said.
        denied: whether the scene is said not to happen.
    """

    kind: int | None
    agent: int
    verb: int
    object: int
    place: int | None
    denied: bool = False


def similarity_row(draw: Draw) -> tuple[tuple[str, str], float]:
    """A pair of sentences and their similarity in [0, 5], in steps of 0.2 as annotators' means come."""
    while True:
        scene = _scene(draw)
        changed, cost = _unrelated(draw, scene), 4.8
        if not draw.chance(5):
            changed, cost = scene, 0.0
            for _ in range(draw.weighted([(0, 10), (1, 55), (2, 35)])):
                changed, more = _change(draw, changed, draw.weighted(_CHANGES))
                cost += more  # a denial that is taken back gives back what it cost
        one, two = _tell(draw, scene), _tell(draw, changed)
        if one != two:
            return ((two, one) if draw.chance(50) else (one, two)), _step(draw, 5 - cost)


_CHANGES = [("place", 45), ("agent", 10), ("verb", 7), ("object", 10), ("turn", 6), ("deny", 65)]


def _verbs(scene: Scene) -> tuple[str, ...]:
    return DEEDS if scene.kind is None else KINDS[scene.kind][0]


def _scene(draw: Draw) -> Scene:
    place = draw.below(len(PLACES)) if draw.chance(50) else None
    agent = draw.below(len(AGENTS))
    if draw.chance(30):
        return Scene(None, agent, draw.below(len(DEEDS)), draw.other(range(len(AGENTS)), agent), place)
    kind = draw.below(len(KINDS))
    return Scene(kind, agent, draw.below(len(KINDS[kind][0])), draw.below(len(KINDS[kind][1])), place)


def _unrelated(draw: Draw, scene: Scene) -> Scene:
    """A scene that has no part in common with `scene`."""
    while True:
        new = _scene(draw)
        agents = {new.agent} if new.kind is not None else {new.agent, new.object}
        if new.kind != scene.kind and new.place != scene.place and not agents & {scene.agent, scene.object}:
            return new


def _change(draw: Draw, scene: Scene, name: str) -> tuple[Scene, float]:
    """The scene after the named change and what that costs."""
    if name == "place":
        if scene.place is None:
            return replace(scene, place=draw.below(len(PLACES))), 0.2
        if draw.chance(50):
            return replace(scene, place=None), 0.2
        return replace(scene, place=draw.other(range(len(PLACES)), scene.place)), 0.4
    if name == "agent":
        taken = [scene.agent] if scene.kind is not None else [scene.agent, scene.object]
        return replace(scene, agent=draw.other(range(len(AGENTS)), *taken)), 0.8
    if name == "verb":
        return replace(scene, verb=draw.other(range(len(_verbs(scene))), scene.verb)), 1.0
    if name == "object":
        if scene.kind is None:
            return replace(scene, object=draw.other(range(len(AGENTS)), scene.agent, scene.object)), 0.8
        return replace(scene, object=draw.other(range(len(KINDS[scene.kind][1])), scene.object)), 0.8
    if name == "turn" and scene.kind is None:
        return replace(scene, agent=scene.object, object=scene.agent), 1.6
    return replace(scene, denied=not scene.denied), 2.2 if not scene.denied else -2.2


def _step(draw: Draw, value: float) -> float:
    """Rounded to a multiple of 0.2 after a disagreement of up to 0.2 between annotators, and kept in [0, 5]."""
    steps = round(value * 5) + draw.weighted([(-1, 1), (0, 2), (1, 1)])
    return min(max(steps, 0), 25) / 5


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _tell(draw: Draw, scene: Scene) -> str:
    what = draw.pick(AGENTS[scene.object]) if scene.kind is None else KINDS[scene.kind][1][scene.object]
    who, no = _article(draw.pick(AGENTS[scene.agent])), "not " if scene.denied else ""
    text = f"{who} is {no}{_verbs(scene)[scene.verb]} {_article(what)}"
    if scene.place is not None:
        where = PLACES[scene.place]
        text = f"{where}, {text}" if draw.chance(20) else f"{text} {where}"
    return text[0].upper() + text[1:] + "."
