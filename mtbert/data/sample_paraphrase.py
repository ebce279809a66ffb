"""Question pairs: duplicates by paraphrase, and non-duplicates that share most of their words.

A domain has intents (each a list of ways to ask the same) and slots. A duplicate asks one intent twice with the same
slots. A non-duplicate changes a slot (an entity, a number), swaps two of them (from A to B, from B to A), adds a
qualifier, or asks a neighbouring intent about the same thing. Templates that name the roles the other way round ("reach
{b} from {a}") make the order of words matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtbert.data.draw import Draw
from mtbert.data.lexicon import Forms, entities as ents


def entities(t):
    return tuple((f[0],) for f in ents(t))


SKILLS = entities("""
    Python|Java|calculus|chess|the guitar|the piano|Spanish/the Spanish language|German/the German language
    Mandarin/Chinese|drawing|public speaking|swimming|machine learning|statistics|photography|cooking
    touch typing|the violin|Arabic|Japanese|accounting|web design|video editing|ballroom dancing|yoga
    linear algebra|French|poker|knitting|creative writing|organic chemistry|C++|JavaScript|skateboarding
    singing|sign language|surfing|carpentry|Russian|quantum mechanics
""")
CITIES = entities("""
    London|Paris|New York/New York City|Tokyo|Mumbai/Bombay|Delhi/New Delhi|Berlin|Madrid|Rome|Chicago
    Toronto|Sydney|Dubai|Singapore|Bangkok|Istanbul|Moscow|Lagos|Cairo|Lima|Boston|Seattle|Vienna|Prague
    Amsterdam|Bangalore|Chennai|Hyderabad|Los Angeles/LA|San Francisco|Lisbon|Dublin|Athens|Warsaw|Seoul
    Beijing|Shanghai|Hong Kong|Nairobi
""")
COUNTRIES = entities("""
    the United States/America/the US|the United Kingdom/Britain/the UK|India|China|Canada|Australia|Germany
    France|Japan|Brazil|Mexico|Spain|Italy|Russia|Turkey|Egypt|Kenya|Nigeria|Norway|Sweden|Poland|Greece
    Vietnam|Thailand|Indonesia|Pakistan|Argentina|Chile|Portugal|Austria|Hungary|Finland|Denmark|South Korea
    Israel|Peru|Colombia|Ukraine
""")
SITES = entities("""
    Facebook/FB|Instagram|Twitter|Gmail/Google Mail|LinkedIn|Snapchat|WhatsApp|Skype|Reddit|Netflix|Spotify
    Amazon|PayPal|Dropbox|YouTube|Quora|Tinder|Pinterest|Steam|eBay|Uber|Airbnb|Telegram|Yahoo|Outlook
    Discord|Tumblr|iCloud
""")
DEVICES = entities("""
    laptop/notebook computer|phone/mobile phone/cell phone|tablet|printer|television/TV
    washing machine/washer|fridge/refrigerator|router|camera|desktop computer/PC|smartwatch|dishwasher
    vacuum cleaner/hoover|microwave|car engine|game console|keyboard|air conditioner|hard drive|projector
    electric kettle|coffee maker|headset|bicycle lamp
""")
FAULTS = entities("""
    overheating/getting too hot|turning itself off/shutting down by itself
    making a loud noise/making a lot of noise|leaking|running slowly/working slowly
    not charging/refusing to charge|not starting/refusing to start|smelling of smoke|blinking red
    losing its connection/dropping its connection|freezing/locking up|vibrating/shaking|beeping
    restarting in a loop
""")
FOODS = entities("""
    rice|pasta|lentils|salmon|chicken breast/chicken breasts|steak|pancakes|bread|pizza dough|potatoes|eggs
    tofu|mushroom soup|a birthday cake|cheesecake|brown rice|beans|lamb curry|dumplings|french fries/chips
    noodles|shrimp/prawns|porridge|ice cream|yogurt
""")
TOOLS = entities("""
    an oven|a microwave|butter|eggs|a pressure cooker|oil|sugar|milk|a blender|salt|yeast|a frying pan|cream
    flour|garlic|onions
""")
JOBS = entities("""
    a doctor/a physician|a lawyer/an attorney|a pilot|a data scientist|a teacher|a nurse
    a software engineer/a software developer|a chef|a journalist|an architect|an actor
    a police officer/a cop|a civil engineer|a dentist|a translator|a writer/an author|a firefighter
    an electrician|a veterinarian/a vet|a psychologist|a professor|a film director|a fashion model|a judge
    a game designer|an accountant|a detective|a flight attendant|an astronaut|a librarian|a politician
    a diplomat
""")
PETS = entities("""
    dog|cat|puppy|kitten|parrot|rabbit/bunny|hamster|horse|goldfish|ferret|guinea pig|turtle|pony|cockatiel
    canary|lizard|goat
""")
HABITS = entities("""
    biting/biting people|barking at strangers|sleeping in the bed|eating grass
    scratching the sofa/scratching the couch|jumping on guests|hiding all day|chewing shoes
    waking up at night|drinking from the sink|running away/escaping|digging holes|climbing the curtains
    following people|shedding hair/losing hair|refusing food/not eating
""")
FORMATS = entities("""
    a PDF file/a PDF|a Word document|an Excel sheet/an Excel spreadsheet|a JPEG image/a JPEG|a PNG image
    an MP3 file|a WAV file|a CSV file|an MP4 video|a GIF|plain text/a text file|an HTML page
    a PowerPoint presentation/PowerPoint slides|an XML file|an EPUB book
""")
VEHICLES = entities("""
    a diesel car|an electric car/an EV|a motorcycle/a motorbike|a bicycle/a bike|a train ticket|a scooter
    a van|a camper|an SUV|a taxi/a cab
""")
GADGETS = entities("""
    an iPhone|an Android phone|a Kindle|a paper book|a MacBook|a Windows laptop|an iPad|a paper notebook
    a mirrorless camera|a DSLR|a Chromebook|a desktop computer|a voice recorder|a typewriter
""")
GROCERIES = entities("""
    coffee|green tea|whey protein|almond milk|cow milk|brown rice|white rice|olive oil|coconut oil|honey
    brown sugar|oatmeal|eggs|tofu|fish|chicken
""")
SAVINGS = entities("""
    a savings account|index funds|gold|real estate/property|government bonds|bitcoin|a pension plan
    single stocks|cash
""")
USES = entities("""
    students/college students|daily use/everyday use|long trips|hot weather|older people/the elderly
    a large family|small towns
""")
READING = entities("""
    students/college students|travel|writing a book|small children/young kids|work/the office
    the elderly/older people|night use
""")
DIETS = entities("""
    losing weight|gaining muscle/building muscle|people with diabetes|small children/young kids|breakfast
    runners|baking|sleep
""")
GOALS = entities("""
    retirement|a beginner|a young family|the short term|the long term|a rich person/a wealthy person
    paying for college|a recession
""")
PEOPLE = entities("""
    Einstein/Albert Einstein|Newton/Isaac Newton|Tesla/Nikola Tesla|Edison/Thomas Edison
    Gandhi/Mahatma Gandhi|Churchill/Winston Churchill|Napoleon/Napoleon Bonaparte|Darwin/Charles Darwin
    Freud/Sigmund Freud|Jung/Carl Jung|Plato|Aristotle|Mozart|Beethoven|Picasso|Matisse|Tolstoy/Leo Tolstoy
    Dostoevsky|Lincoln/Abraham Lincoln|Nehru|Marx/Karl Marx|Nietzsche|Bach|Feynman
""")
AMOUNTS = entities("500|1000|2000|3000|5000|8000|10000|20000|50000|100000")
KILOS = entities("3|4|5|6|7|8|10|12|15|20|25|30")
WEEKS = entities("2|3|4|5|6|8|9|10|12")
YEARS = entities("2009|2010|2011|2012|2013|2014|2015|2016|2017|2018")
GENRES = entities("""
    science fiction/sci-fi|horror/scary|romantic/romance|historical|crime/detective|fantasy|comic/funny|war
    adventure|political|philosophical|short|children's
""")
WORKS = entities("""
    novels|movies/films|TV shows/TV series|podcasts|video games|documentaries|comics|plays
""")
SUBSTANCES = entities("""
    coffee|red wine|olive oil|ink|blood|chocolate|candle wax|glue|tomato sauce|paint|grass|beer|curry
    chewing gum|nail polish|oil
""")
SURFACES = entities("""
    a carpet/a rug|a white shirt|a leather sofa/a leather couch|jeans|a wooden table|a mattress
    a marble floor|a silk dress|car seats|suede shoes|a painted wall|a wool sweater/a wool jumper|curtains
""")
STUDY = (
    "without a teacher",
    "as a complete beginner",
    "after the age of forty",
    "with only an hour a day",
    "online",
    "as a child",
    "in a summer",
)
JOURNEY = (
    "in winter",
    "with two small children",
    "without a passport",
    "overnight",
    "with a dog",
    "as a student",
    "during the holidays",
)
ONLINE = (
    "without a phone number",
    "from a phone",
    "without paying",
    "after ten years",
    "anonymously",
    "on Linux",
    "for someone else",
)
CAREER = (
    "without a degree",
    "as a foreigner",
    "after the age of forty",
    "part time",
    "without speaking the language",
    "as a woman",
)
BODY = (
    "during pregnancy",
    "after surgery",
    "without exercise",
    "as a teenager",
    "without eating meat",
    "after the age of sixty",
)
MONEY = (
    "without a bank account",
    "as a student",
    "after retirement",
    "with bad credit",
    "without paying taxes",
    "as a foreigner",
)
FILLERS = ("{q}",)


@dataclass(frozen=True)
class Domain:
    """Slots by letter, intents as lists of templates, which pair of slots has a direction, and what may narrow {z}."""

    slots: dict[str, tuple[Forms, ...]]
    intents: tuple[tuple[str, ...], ...]
    direction: str = ""
    qualifiers: tuple[str, ...] = ()


COMPARED = ((VEHICLES, USES), (GADGETS, READING), (GROCERIES, DIETS), (SAVINGS, GOALS))


def _comparisons(things: tuple[Forms, ...], uses: tuple[Forms, ...]) -> tuple[Domain, Domain]:
    """Questions about two things for one use: those where the order of the two matters, and those where it does not."""
    slots = {"a": things, "b": things, "c": uses}
    ordered = (
        (
            "Why is {a} better than {b} for {c}?",
            "What makes {a} superior to {b} when it comes to {c}?",
            "Why is {b} worse than {a} for {c}?",
            "In what way does {a} beat {b} for {c}?",
        ),
        (
            "Is it worth replacing {a} with {b} for {c}?",
            "Should I give up {a} and get {b} for {c}?",
            "Does it make sense to get {b} instead of {a} for {c}?",
        ),
        (
            "Is {a} more expensive than {b} for {c}?",
            "Does {a} cost more than {b} for {c}?",
            "Is {b} cheaper than {a} for {c}?",
        ),
    )
    unordered = (
        (
            "Which is better for {c}, {a} or {b}?",
            "What should I choose for {c}: {b} or {a}?",
            "For {c}, is it better to have {b} or {a}?",
        ),
        (
            "What is the difference between {a} and {b} for {c}?",
            "How do {b} and {a} differ for {c}?",
            "When it comes to {c}, how is {a} different from {b}?",
        ),
        ("Can I use both {a} and {b} for {c}?", "Is it fine to combine {b} with {a} for {c}?"),
    )
    return Domain(slots, ordered, "ab"), Domain(slots, unordered)


DOMAINS = (
    Domain({"a": SKILLS}, (
        ("How do I learn {a}{z}?", "What is the best way to learn {a}{z}?", "How can I get good at {a}{z}?"),
        ("How long does it take to learn {a}{z}?", "How many months do I need to learn {a}{z}?"),
        ("Why should I learn {a}{z}?", "Is it worth learning {a}{z}?"),
    ), qualifiers=("without a teacher", "without money", "without a book")),
    Domain({"a": CITIES, "b": CITIES}, (
        ("How do I get from {a} to {b}{z}?", "What is the best way from {a} to {b}{z}?", "How can I travel from {a} to {b}{z}?"),
        ("How long is the trip from {a} to {b}{z}?", "How many hours does it take from {a} to {b}{z}?"),
        ("Should I move from {a} to {b}{z}?", "Is it a good idea to leave {a} for {b}{z}?"),
    ), "ab", ("without a car", "without money", "without a passport")),
    Domain({"a": SITES}, (
        ("How do I delete my {a} account{z}?", "How can I remove my account on {a}{z}?", "How do I close my {a} account{z}?"),
        ("How do I change my password on {a}{z}?", "How can I set a new {a} password{z}?"),
        ("How do I open a second {a} account{z}?", "Can I have two accounts on {a}{z}?"),
    ), qualifiers=("without a phone", "without my password", "without an email")),
    Domain({"a": JOBS, "b": COUNTRIES}, (
        ("How do I become {a} in {b}{z}?", "What does it take to be {a} in {b}{z}?"),
        ("How much does {a} earn in {b}{z}?", "What is the salary of {a} in {b}{z}?"),
        ("Is it hard to work as {a} in {b}{z}?", "How tough is life as {a} in {b}{z}?"),
    ), qualifiers=("without a degree", "without a visa", "without experience")),
)

Slots = dict[str, Forms]


def paraphrase_row(draw: Draw) -> tuple[tuple[str, str], int]:
    """A pair of questions and whether they are duplicates; .37 are, as in the Quora data."""
    while True:
        pair, label = _pair(draw)
        if pair[0] != pair[1]:
            return pair, label


def _pair(draw: Draw) -> tuple[tuple[str, str], int]:
    domain = draw.pick(DOMAINS)
    intent, slots = draw.below(len(domain.intents)), _slots(draw, domain)
    template = draw.pick(domain.intents[intent])
    if draw.chance(40):
        same = draw.chance(15)
        again = _rephrase(draw, domain.intents[intent], template, same)
        return _ask_both(draw, domain.qualifiers, (template, slots, ""), (again, slots, "")), 1
    kind = draw.weighted([(_other_slot, 6), (_swapped, 4), (_other_intent, 6), (_unrelated, 16), (_qualified, 68)])
    return _ask_both(draw, domain.qualifiers, (template, slots, ""), kind(draw, domain, intent, slots, template)), 0


Question = tuple[str, Slots, str]
Change = Callable[[Draw, Domain, int, Slots, str], Question]


def _slots(draw: Draw, domain: Domain) -> Slots:
    slots: Slots = {}
    for letter, choices in domain.slots.items():
        slots[letter] = draw.other(choices, *slots.values())
    return slots


def _rephrase(draw: Draw, templates: tuple[str, ...], template: str, same: bool) -> str:
    return template if same else draw.other(templates, template)


def _other_slot(draw: Draw, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    letter = draw.pick(sorted(slots))
    changed = {**slots, letter: draw.other(domain.slots[letter], *slots.values())}
    return _rephrase(draw, domain.intents[intent], template, draw.chance(40)), changed, ""


def _swapped(draw: Draw, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    if not domain.direction or domain.slots["a"] is not domain.slots["b"]:
        return _other_slot(draw, domain, intent, slots, template)
    swapped = {**slots, "a": slots["b"], "b": slots["a"]}
    return _rephrase(draw, domain.intents[intent], template, draw.chance(40)), swapped, ""


def _other_intent(draw: Draw, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    return draw.pick(domain.intents[draw.other(range(len(domain.intents)), intent)]), slots, ""


def _qualified(draw: Draw, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    if "{z}" not in template:
        return _other_intent(draw, domain, intent, slots, template)
    choices = [other for other in domain.intents[intent] if "{z}" in other]
    return draw.pick(choices), slots, " " + draw.pick(domain.qualifiers)


def _unrelated(draw: Draw, domain: Domain, intent: int, slots: Slots, template: str) -> Question:
    other = draw.other(DOMAINS, domain)
    return draw.pick(draw.pick(other.intents)), _slots(draw, other), ""


def _ask_both(draw: Draw, qualifiers: tuple[str, ...], first: Question, second: Question) -> tuple[str, str]:
    if draw.chance(50):
        first, second = second, first
    # A qualifier in both questions changes nothing between them; one in either alone would.
    narrow = "{z}" in first[0] and "{z}" in second[0] and not first[2] and not second[2] and draw.chance(5)
    shared = " " + draw.pick(qualifiers) if narrow else ""
    return _ask(draw, first, shared), _ask(draw, second, shared)


def _ask(draw: Draw, question: Question, shared: str) -> str:
    template, slots, qualifier = question
    words = {letter: draw.pick(forms) for letter, forms in slots.items()}
    text = template.format(z=qualifier or shared, **words)
    lower = text if text.startswith(("I ", "I'")) else text[0].lower() + text[1:]
    return draw.pick(FILLERS).format(q=text, l=lower)
