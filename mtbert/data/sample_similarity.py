"""Sentence pairs with a similarity from 0 to 5: one scene told twice, with some of its parts changed in between.

Similarity is 5 less what the changes weigh: leaving out a place costs little, another place or colour more, another
number or object more again, and an exchange of who acts on whom most of all, though every word stays. Active, passive
and existential wording and synonyms cost nothing.
"""

from dataclasses import dataclass, replace

from mtbert.data.draw import Draw
from mtbert.data.lexicon import Forms, entities, verbs

# Agents by group: within a group they are siblings, between groups they have little in common.
AGENTS: tuple[tuple[Forms, ...], ...] = (
    entities("""
        man/guy|woman/lady|boy/young boy|girl/young girl|teenager/teen|grandmother/granny|child/kid
        baby/infant|father/dad|mother/mom
    """),
    entities("""
        doctor/physician|police officer/cop|soldier|teacher|chef/cook|farmer|painter|waiter|mechanic|singer
        nurse|clown|boxer|fisherman
    """),
    entities("""
        dog/hound|cat|horse|puppy/young dog|kitten/young cat|goat|sheep|cow|pig|donkey|rabbit/bunny
    """),
    entities("""
        monkey|tiger|elephant|bear|lion|panda|fox|wolf|deer|kangaroo|turtle|snake|squirrel|parrot|duck
        lizard
    """),
)
ADJECTIVES: tuple[Forms, ...] = entities("""
    tall|small/little|young|old/elderly|tired/weary|happy/cheerful|angry/furious|hungry|wet|muddy
    thin/skinny|fat|wounded/hurt|brave|lazy|nervous/anxious|sleepy/drowsy|clumsy|strong|lonely|bored
    friendly|smiling|calm
""")
COLOURS: tuple[Forms, ...] = entities("red|blue|green|yellow|black|white|brown|pink|orange|gray|purple|silver|golden")
NUMBERS: tuple[Forms, ...] = entities("two|three|four|five|six|seven|eight|ten|twelve")
# Verbs as (progressive forms, participles), by group; then objects of that group as singular/synonym.
VERBS = (
    verbs("""
        cutting/slicing:cut/sliced|peeling:peeled|frying/pan-frying:fried/pan-fried
        washing/rinsing:washed/rinsed|eating/devouring:eaten/devoured
        throwing away/discarding:thrown away/discarded|weighing:weighed|buying/purchasing:bought/purchased
    """),
    verbs("""
        playing/performing on:played/performed on|tuning:tuned|repairing/fixing:repaired/fixed
        carrying/hauling:carried/hauled|selling:sold|smashing/destroying:smashed/destroyed
        cleaning/wiping:cleaned/wiped|hiding:hidden
    """),
    verbs("""
        riding:ridden|pushing/shoving:pushed/shoved|pulling/towing:pulled/towed|painting:painted
        stealing:stolen|washing/cleaning:washed/cleaned|repairing/fixing:repaired/fixed
        inspecting/examining:inspected/examined
    """),
    verbs("""
        throwing/tossing:thrown/tossed|catching/grabbing:caught/grabbed|kicking:kicked|dropping:dropped
        holding/gripping:held/gripped|burying:buried|finding/discovering:found/discovered
        chewing on/gnawing on:chewed on/gnawed on
    """),
)
OBJECTS: tuple[tuple[Forms, ...], ...] = (
    entities("""
        onion|potato|carrot|tomato|fish|pepper|cucumber|apple|banana|pineapple|mushroom|egg|sausage
        eggplant/aubergine|cabbage|pear
    """),
    entities("""
        guitar|violin/fiddle|piano|flute|drum|trumpet|harp|accordion|cello|banjo|saxophone/sax|keyboard
        clarinet
    """),
    entities("""
        bicycle/bike|motorcycle/motorbike|car/automobile|cart|boat|scooter|truck/lorry|sled|wheelchair
        tractor|bus|canoe|wagon
    """),
    entities("""
        ball|stick|frisbee|shoe|hat/cap|book|bottle|toy|bone|stone/rock|rope|pillow|glove|newspaper/paper
        bucket/pail|coin|key|cup/mug
    """),
)
# What one agent does to another: any of these may be turned round.
DEEDS = verbs("""
    chasing/running after:chased/pursued|following/walking behind:followed/trailed|biting:bitten
    feeding/giving food to:fed/given food|hugging/embracing:hugged/embraced|kicking:kicked
    watching/looking at:watched/looked at|licking:licked|carrying/lifting:carried/lifted
    pushing/shoving:pushed/shoved|frightening/scaring:frightened/scared|waking:woken
    washing/bathing:washed/bathed|rescuing/saving:rescued/saved|attacking/assaulting:attacked/assaulted
    ignoring:ignored|tickling:tickled|guiding/leading:guided/led|comforting/soothing:comforted/soothed
    teasing:teased
""")
PLACES: tuple[Forms, ...] = entities("""
    in the kitchen|on the beach/at the seaside|in the park|in the snow|on a stage|in the garden/in the yard
    on the street/on the road|near a river/by a river|in a field/in a meadow|at the station
    in the forest/in the woods|behind the house|on a boat|in front of a shop/in front of a store
    in a parking lot/in a car park|under a tree|on the roof|in the barn|next to a fence
    on a mountain/on a hilltop|in the rain|at school|in a cage|near the church|on the stairs|beside a lake
    on a bridge|at the airport
""")
TIMES: tuple[Forms, ...] = entities("""
    in the morning|at night/after dark|during a storm|before dinner|at noon/at midday
    after the match/after the game|on Sunday|at dawn/at sunrise|all day long/the whole day
""")


@dataclass(frozen=True)
class Scene:
    """Who does what to what or whom, where and when; None for what is not told.

    Attributes:
        agent, other: (group, index) of the one who acts and, if the object is an agent too, of whom it is done to.
        verb: index of the deed, or (with an object) of a verb of group `kind`.
        kind, thing: group and index of the object; thing is None where `other` is told.
        count: of the agents, None for one. denied: whether the scene is said not to happen.
    """

    agent: tuple[int, int]
    adjective: int | None
    count: int | None
    kind: int
    verb: int
    thing: int | None
    colour: int | None
    other: tuple[int, int] | None
    other_adjective: int | None
    place: int | None
    time: int | None
    denied: bool = False


def similarity_row(draw: Draw) -> tuple[tuple[str, str], float]:
    """A pair of sentences and their similarity in [0, 5], in steps of 0.2 as annotators' means come."""
    scene = _scene(draw)
    if draw.chance(9):
        return _tell_both(draw, scene, _unrelated(draw, scene)), _step(draw, 0.2)
    changes = draw.weighted([(0, 17), (1, 33), (2, 28), (3, 16), (4, 6)])
    changed, cost, done = scene, 0.0, set[str]()
    while len(done) < changes:
        name = draw.weighted(_CHANGES)
        if name in done:
            continue
        result = _change(draw, changed, name)
        if result is None:
            continue
        done.add(name)
        changed, more = result
        # What is left in common shrinks with each change, so that later ones cost less.
        cost += more * (1 - cost / 6.5)
    return _tell_both(draw, scene, changed), _step(draw, 5 - cost)


_CHANGES = [
    ("leave_place", 10),
    ("leave_time", 6),
    ("leave_adjective", 10),
    ("place", 10),
    ("time", 7),
    ("adjective", 12),
    ("colour", 12),
    ("count", 10),
    ("agent", 12),
    ("far_agent", 8),
    ("verb", 14),
    ("thing", 12),
    ("far_thing", 7),
    ("other", 12),
    ("turn", 22),
    ("swap_adjectives", 8),
    ("deny", 7),
]


def _scene(draw: Draw) -> Scene:
    kind = draw.below(len(VERBS))
    with_other = draw.chance(45)
    agent = _agent(draw)
    other = None
    while with_other and (other is None or other == agent):
        other = _agent(draw)
    count = draw.below(len(NUMBERS)) if draw.chance(20) else None
    return Scene(
        agent=agent,
        adjective=draw.below(len(ADJECTIVES)) if draw.chance(60) else None,
        count=count,
        kind=kind,
        verb=draw.below(len(DEEDS if other else VERBS[kind])),
        thing=None if other else draw.below(len(OBJECTS[kind])),
        colour=None if other or not draw.chance(45) or kind == 0 else draw.below(len(COLOURS)),
        other=other,
        other_adjective=draw.below(len(ADJECTIVES)) if other and draw.chance(40) else None,
        place=draw.below(len(PLACES)) if draw.chance(80) else None,
        time=draw.below(len(TIMES)) if draw.chance(30) else None,
    )


def _agent(draw: Draw) -> tuple[int, int]:
    group = draw.below(len(AGENTS))
    return group, draw.below(len(AGENTS[group]))


def _another(draw: Draw, count: int, *taken: int | None) -> int:
    return draw.other(range(count), *(index for index in taken if index is not None))


def _unrelated(draw: Draw, scene: Scene) -> Scene:
    """A scene that has no part in common with `scene`."""
    while True:
        new = _scene(draw)
        if {new.agent, new.other} & {scene.agent, scene.other} - {None} or (
            new.kind == scene.kind and new.thing is not None
        ):
            continue
        if new.place != scene.place and new.agent[0] != scene.agent[0] and (new.other is None) != (scene.other is None):
            return new


def _change(draw: Draw, scene: Scene, name: str) -> tuple[Scene, float] | None:
    """The scene after the named change and the change's weight, or None if the scene has no such part."""
    if name in ("leave_place", "place") and scene.place is not None:
        new = None if name == "leave_place" else _another(draw, len(PLACES), scene.place)
        return replace(scene, place=new), 0.4 if new is None else 1.0
    if name in ("leave_time", "time") and scene.time is not None:
        new = None if name == "leave_time" else _another(draw, len(TIMES), scene.time)
        return replace(scene, time=new), 0.4 if new is None else 0.8
    if name in ("leave_adjective", "adjective") and scene.adjective is not None:
        new = None if name == "leave_adjective" else _another(draw, len(ADJECTIVES), scene.adjective)
        return replace(scene, adjective=new), 0.5 if new is None else 1.1
    if (
        name == "swap_adjectives"
        and scene.other_adjective is not None
        and scene.adjective not in (None, scene.other_adjective)
    ):
        return replace(scene, adjective=scene.other_adjective, other_adjective=scene.adjective), 1.6
    if name == "colour" and scene.colour is not None:
        return replace(scene, colour=_another(draw, len(COLOURS), scene.colour)), 1.0
    if name == "count" and scene.count is not None:
        return replace(scene, count=_another(draw, len(NUMBERS), scene.count)), 1.3
    if name == "agent":
        group, index = scene.agent
        taken = [scene.other[1]] if scene.other and scene.other[0] == group else []
        return replace(scene, agent=(group, _another(draw, len(AGENTS[group]), index, *taken))), 1.5
    if name == "far_agent":
        group = _another(draw, len(AGENTS), scene.agent[0], scene.other[0] if scene.other else None)
        return replace(scene, agent=(group, draw.below(len(AGENTS[group])))), 2.2
    if name == "verb":
        return replace(scene, verb=_another(draw, len(DEEDS if scene.other else VERBS[scene.kind]), scene.verb)), 2.0
    if name == "thing" and scene.thing is not None:
        return replace(scene, thing=_another(draw, len(OBJECTS[scene.kind]), scene.thing)), 1.6
    if name == "far_thing" and scene.thing is not None:
        kind = _another(draw, len(OBJECTS), scene.kind)
        thing, verb = draw.below(len(OBJECTS[kind])), draw.below(len(VERBS[kind]))
        return replace(scene, kind=kind, thing=thing, verb=verb, colour=None if kind == 0 else scene.colour), 3.4
    if name == "other" and scene.other is not None:
        group, index = scene.other
        taken = [scene.agent[1]] if scene.agent[0] == group else []
        return replace(scene, other=(group, _another(draw, len(AGENTS[group]), index, *taken))), 1.5
    if name == "turn" and scene.other is not None:
        turned = replace(scene, agent=scene.other, other=scene.agent, count=None)
        return replace(turned, adjective=scene.other_adjective, other_adjective=scene.adjective), 2.8
    if name == "deny" and not scene.denied:
        return replace(scene, denied=True), 2.4
    return None


def _step(draw: Draw, value: float) -> float:
    """Rounded to a multiple of 0.2 after a disagreement of up to 0.4 between annotators, and kept in [0, 5]."""
    steps = round(value * 5) + draw.weighted([(-2, 1), (-1, 3), (0, 6), (1, 3), (2, 1)])
    return min(max(steps, 0), 25) / 5


def _tell_both(draw: Draw, first: Scene, second: Scene) -> tuple[str, str]:
    """Both scenes in words, told in different ways where they would read the same."""
    one = _tell(draw, first)
    two = _tell(draw, second)
    while one == two:
        one, two = _tell(draw, first), _tell(draw, second)
    return (two, one) if draw.chance(50) else (one, two)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _plural(noun: str) -> str:
    irregular = {
        "man": "men",
        "woman": "women",
        "child": "children",
        "fisherman": "fishermen",
        "sheep": "sheep",
        "deer": "deer",
        "wolf": "wolves",
    }
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "s", "ch", "sh")) else "s")


def _tell(draw: Draw, scene: Scene) -> str:
    agent = draw.pick(AGENTS[scene.agent[0]][scene.agent[1]])
    adjective = "" if scene.adjective is None else draw.pick(ADJECTIVES[scene.adjective]) + " "
    plural = scene.count is not None
    if scene.count is not None:
        who = f"{NUMBERS[scene.count][0]} {adjective}{_plural(agent)}"
    else:
        who = _article(adjective + agent)
    if scene.other is not None:
        other = draw.pick(AGENTS[scene.other[0]][scene.other[1]])
        other_adjective = "" if scene.other_adjective is None else draw.pick(ADJECTIVES[scene.other_adjective]) + " "
        whom, (doing, done) = _article(other_adjective + other), DEEDS[scene.verb]
    else:
        assert scene.thing is not None
        thing = draw.pick(OBJECTS[scene.kind][scene.thing])
        colour = "" if scene.colour is None else COLOURS[scene.colour][0] + " "
        whom, (doing, done) = _article(colour + thing), VERBS[scene.kind][scene.verb]
    be, no = ("are" if plural else "is"), (" not" if scene.denied else "")
    form = draw.below(100)
    if form < 50:
        core = f"{who} {be}{no} {draw.pick(doing)} {whom}"
    elif form < 85:
        core = f"{whom} is{no} being {draw.pick(done)} by {who}"
    elif scene.denied:
        core = f"there {be} {who} , but not {draw.pick(doing)} {whom}".replace(" ,", ",")
    else:
        core = f"there {be} {who} {draw.pick(doing)} {whom}"
    where = "" if scene.place is None else draw.pick(PLACES[scene.place])
    when = "" if scene.time is None else draw.pick(TIMES[scene.time])
    if where and draw.chance(20):
        text = f"{where}, {core} {when}"
    elif when and draw.chance(30):
        text = f"{when}, {core} {where}"
    else:
        text = f"{core} {where} {when}"
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + "."
