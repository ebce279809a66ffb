"""Question pairs: duplicates by paraphrase, and non-duplicates that share most of their words.

A domain has intents (each a list of templates that ask the same) and slots. A duplicate asks one intent twice with the same
slots. Most non-duplicates narrow one of the two questions ("without money"); others change a slot, swap two slots
(from A to B, from B to A), ask another intent with the same slots, or have nothing in common.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtbert.sample.lexicon import words
from mtbert.sample.rng import PortableRandom

SKILLS = words("""
    Python|Java|calculus|chess|the guitar|the piano|Spanish|German
    Mandarin|drawing|public speaking|swimming|machine learning|statistics|photography|cooking
    touch typing|the violin|Arabic|Japanese|accounting|web design|video editing|ballroom dancing|yoga
    linear algebra|French|poker|knitting|creative writing|organic chemistry|C++|JavaScript|skateboarding
    singing|sign language|surfing|carpentry|Russian|quantum mechanics
""")
CITIES = words("""
    London|Paris|New York|Tokyo|Mumbai|Delhi|Berlin|Madrid|Rome|Chicago
    Toronto|Sydney|Dubai|Singapore|Bangkok|Istanbul|Moscow|Lagos|Cairo|Lima|Boston|Seattle|Vienna|Prague
    Amsterdam|Bangalore|Chennai|Hyderabad|Los Angeles|San Francisco|Lisbon|Dublin|Athens|Warsaw|Seoul
    Beijing|Shanghai|Hong Kong|Nairobi
""")
COUNTRIES = words("""
    the United States|the United Kingdom|India|China|Canada|Australia|Germany
    France|Japan|Brazil|Mexico|Spain|Italy|Russia|Turkey|Egypt|Kenya|Nigeria|Norway|Sweden|Poland|Greece
    Vietnam|Thailand|Indonesia|Pakistan|Argentina|Chile|Portugal|Austria|Hungary|Finland|Denmark|South Korea
    Israel|Peru|Colombia|Ukraine
""")
SITES = words("""
    Facebook|Instagram|Twitter|Gmail|LinkedIn|Snapchat|WhatsApp|Skype|Reddit|Netflix|Spotify
    Amazon|PayPal|Dropbox|YouTube|Quora|Tinder|Pinterest|Steam|eBay|Uber|Airbnb|Telegram|Yahoo|Outlook
    Discord|Tumblr|iCloud
""")
JOBS = words("""
    a doctor|a lawyer|a pilot|a data scientist|a teacher|a nurse
    a software engineer|a chef|a journalist|an architect|an actor
    a police officer|a civil engineer|a dentist|a translator|a writer|a firefighter
    an electrician|a veterinarian|a psychologist|a professor|a film director|a fashion model|a judge
    a game designer|an accountant|a detective|a flight attendant|an astronaut|a librarian|a politician
    a diplomat
""")


@dataclass(frozen=True)
class Domain:
    """Slots by letter, intents as lists of templates, qualifiers to fill {z} with, and whether swapping slots a and b changes the meaning."""

    slots: dict[str, tuple[str, ...]]
    intents: tuple[tuple[str, ...], ...]
    qualifiers: tuple[str, ...]
    directed: bool = False


DOMAINS = (
    Domain(
        {"a": SKILLS},
        (
            ("How do I learn {a}{z}?", "What is the best way to learn {a}{z}?", "How can I get good at {a}{z}?"),
            ("How long does it take to learn {a}{z}?", "How many months do I need to learn {a}{z}?"),
            ("Why should I learn {a}{z}?", "Is it worth learning {a}{z}?"),
        ),
        ("without a teacher", "without money", "without a book"),
    ),
    Domain(
        {"a": CITIES, "b": CITIES},
        (
            (
                "How do I get from {a} to {b}{z}?",
                "What is the best way from {a} to {b}{z}?",
                "How can I travel from {a} to {b}{z}?",
            ),
            ("How long is the trip from {a} to {b}{z}?", "How many hours does it take from {a} to {b}{z}?"),
            ("Should I move from {a} to {b}{z}?", "Is it a good idea to leave {a} for {b}{z}?"),
        ),
        ("without a car", "without money", "without a passport"),
        directed=True,
    ),
    Domain(
        {"a": SITES},
        (
            (
                "How do I delete my {a} account{z}?",
                "How can I remove my account on {a}{z}?",
                "How do I close my {a} account{z}?",
            ),
            ("How do I change my password on {a}{z}?", "How can I set a new {a} password{z}?"),
            ("How do I open a second {a} account{z}?", "Can I have two accounts on {a}{z}?"),
        ),
        ("without a phone", "without my password", "without an email"),
    ),
    Domain(
        {"a": JOBS, "b": COUNTRIES},
        (
            ("How do I become {a} in {b}{z}?", "What does it take to be {a} in {b}{z}?"),
            ("How much does {a} earn in {b}{z}?", "What is the salary of {a} in {b}{z}?"),
            ("Is it hard to work as {a} in {b}{z}?", "How tough is life as {a} in {b}{z}?"),
        ),
        ("without a degree", "without a visa", "without experience"),
    ),
)

Slots = dict[str, str]


def paraphrase_row(rng: PortableRandom) -> tuple[tuple[str, str], int]:
    """A pair of questions and whether they are duplicates; about 35% are (37% in the Quora data)."""
    while True:
        pair, label = _pair(rng)
        if pair[0] != pair[1]:
            return pair, label


def _pair(rng: PortableRandom) -> tuple[tuple[str, str], int]:
    domain = rng.pick(DOMAINS)
    intent, slots = rng.below(len(domain.intents)), _slots(rng, domain)
    template = rng.pick(domain.intents[intent])
    if rng.chance(40):
        same = rng.chance(15)
        again = _rephrase(rng, domain.intents[intent], template, same)
        return _ask_both(rng, domain.qualifiers, (template, slots, ""), (again, slots, "")), 1
    kind = rng.weighted([(_other_slot, 6), (_swapped, 4), (_other_intent, 6), (_unrelated, 16), (_qualified, 68)])
    return _ask_both(rng, domain.qualifiers, (template, slots, ""), kind(rng, domain, intent, slots, template)), 0


Question = tuple[str, Slots, str]
Change = Callable[[PortableRandom, Domain, int, Slots, str], Question]


def _slots(rng: PortableRandom, domain: Domain) -> Slots:
    slots: Slots = {}
    for letter, choices in domain.slots.items():
        slots[letter] = rng.other(choices, *slots.values())
    return slots


def _rephrase(rng: PortableRandom, templates: tuple[str, ...], template: str, same: bool) -> str:
    return template if same else rng.other(templates, template)


def _other_slot(rng: PortableRandom, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    letter = rng.pick(sorted(slots))
    changed = {**slots, letter: rng.other(domain.slots[letter], *slots.values())}
    return _rephrase(rng, domain.intents[intent], template, rng.chance(40)), changed, ""


def _swapped(rng: PortableRandom, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    if not domain.directed:
        return _other_slot(rng, domain, intent, slots, template)
    swapped = {**slots, "a": slots["b"], "b": slots["a"]}
    return _rephrase(rng, domain.intents[intent], template, rng.chance(40)), swapped, ""


def _other_intent(rng: PortableRandom, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    return rng.pick(domain.intents[rng.other(range(len(domain.intents)), intent)]), slots, ""


def _qualified(rng: PortableRandom, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    return rng.pick(domain.intents[intent]), slots, " " + rng.pick(domain.qualifiers)


def _unrelated(rng: PortableRandom, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    other = rng.other(DOMAINS, domain)
    return rng.pick(rng.pick(other.intents)), _slots(rng, other), ""


def _ask_both(rng: PortableRandom, qualifiers: tuple[str, ...], first: Question, second: Question) -> tuple[str, str]:
    if rng.chance(50):
        first, second = second, first
    # The same qualifier in both questions does not change the label.
    shared = " " + rng.pick(qualifiers) if not first[2] and not second[2] and rng.chance(5) else ""
    return _ask(first, shared), _ask(second, shared)


def _ask(question: Question, shared: str) -> str:
    template, slots, qualifier = question
    return template.format(z=qualifier or shared, **slots)
