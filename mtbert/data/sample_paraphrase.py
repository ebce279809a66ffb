"""Question pairs: duplicates by paraphrase, and non-duplicates that share most of their words.

A domain has intents (each a list of ways to ask the same) and slots. A duplicate asks one intent twice with the same
slots. A non-duplicate changes a slot (an entity, a number), swaps two of them (from A to B, from B to A), adds a
qualifier, or asks a neighbouring intent about the same thing. Templates that name the roles the other way round ("reach
{b} from {a}") make the order of words matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtbert.data.draw import Draw
from mtbert.data.lexicon import Forms, entities

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
FILLERS = (
    "{q}",
    "{q}",
    "{q}",
    "{q}",
    "Honestly, {l}",
    "Can anyone tell me: {l}",
    "{q} Any advice is welcome.",
    "Just curious: {l}",
    "{q} I have been wondering about this.",
    "Serious question: {l}",
    "{q} Please help.",
)


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
    Domain(
        {"a": SKILLS},
        (
            (
                "How do I learn {a}{z}?",
                "What is the best way to learn {a}{z}?",
                "How can I get good at {a}{z}?",
                "Where should I begin if I want to study {a}{z}?",
                "What are good ways to pick up {a}{z}?",
                "How can {a} be learned{z}?",
            ),
            (
                "How long does it take to learn {a}{z}?",
                "How many months do I need to learn {a}{z}?",
                "How much time does it take to get good at {a}{z}?",
                "How soon can I become good at {a}{z}?",
            ),
            (
                "Why should I learn {a}{z}?",
                "Is {a} worth learning{z}?",
                "What are the benefits of learning {a}{z}?",
                "What good does it do to study {a}{z}?",
            ),
            ("How hard is it to learn {a}{z}?", "Is {a} difficult to learn{z}?", "Is it tough to get good at {a}{z}?"),
            (
                "How do I teach {a} to somebody else{z}?",
                "What is the best way to teach {a}{z}?",
                "How can I help another person learn {a}{z}?",
            ),
            ("Who is the best person to learn {a} from{z}?", "Which teachers of {a} are the best{z}?"),
        ),
        qualifiers=STUDY,
    ),
    Domain(
        {"a": CITIES, "b": CITIES},
        (
            (
                "What is the cheapest way to get from {a} to {b}{z}?",
                "How can I travel from {a} to {b} for little money{z}?",
                "How do I reach {b} from {a} on a small budget{z}?",
                "What is the least expensive route to {b} from {a}{z}?",
            ),
            (
                "How long is the trip from {a} to {b}{z}?",
                "How many hours does it take to get to {b} from {a}{z}?",
                "How much time should I plan to travel from {a} to {b}{z}?",
            ),
            (
                "Should I move from {a} to {b}{z}?",
                "Is it a good idea to leave {a} for {b}{z}?",
                "Is it wise to move to {b} if I live in {a}{z}?",
            ),
            (
                "Why are so many people moving from {a} to {b}{z}?",
                "Why do people leave {a} and settle in {b}{z}?",
                "What makes {b} attractive to people from {a}{z}?",
            ),
            (
                "How do I send a parcel from {a} to {b}{z}?",
                "What is the best way to ship a package to {b} from {a}{z}?",
            ),
        ),
        "ab",
        JOURNEY,
    ),
    Domain(
        {"a": COUNTRIES, "b": COUNTRIES},
        (
            (
                "Why did {a} attack {b}?",
                "What made {a} invade {b}?",
                "Why was {b} attacked by {a}?",
                "What was the reason for the attack on {b} by {a}?",
            ),
            (
                "Could {a} win a war against {b}?",
                "Would {b} lose a war against {a}?",
                "Is {a} able to defeat {b} in a war?",
                "Can {b} be beaten by {a} in a war?",
            ),
            (
                "Can a citizen of {a} work in {b}{z}?",
                "Is somebody from {a} allowed to take a job in {b}{z}?",
                "Does {b} let people from {a} work there{z}?",
            ),
            (
                "What does {a} export to {b}?",
                "Which goods does {b} import from {a}?",
                "What are the main goods that {a} sells to {b}?",
            ),
            (
                "What do people in {a} think of {b}?",
                "How is {b} seen in {a}?",
                "What is the opinion about {b} among people from {a}?",
            ),
            ("Does {a} owe money to {b}?", "Is {b} owed money by {a}?", "Has {a} borrowed money from {b}?"),
        ),
        "ab",
        CAREER,
    ),
    Domain(
        {"a": SITES},
        (
            (
                "How do I delete my {a} account{z}?",
                "How can I remove my account on {a} for good{z}?",
                "How do I close my {a} account{z}?",
                "What are the steps to get rid of a {a} account{z}?",
            ),
            (
                "How do I recover my {a} account{z}?",
                "How can I get my {a} account back{z}?",
                "My {a} account is lost. How do I restore it{z}?",
            ),
            (
                "How do I change my password on {a}{z}?",
                "How can I set a new {a} password{z}?",
                "Where do I reset my {a} password{z}?",
            ),
            (
                "How do I create a second {a} account{z}?",
                "Can I have two accounts on {a}{z}?",
                "How do I open another account on {a}{z}?",
            ),
            (
                "How does {a} make money?",
                "What is the business model of {a}?",
                "Where does the revenue of {a} come from?",
            ),
            ("How do I block someone on {a}{z}?", "How can I stop someone from contacting me on {a}{z}?"),
            (
                "How do I know who blocked me on {a}{z}?",
                "How can I tell that someone stopped me from contacting them on {a}{z}?",
            ),
        ),
        qualifiers=ONLINE,
    ),
    Domain(
        {"a": DEVICES, "b": FAULTS},
        (
            ("Why is my {a} {b}?", "What is the reason that my {a} keeps {b}?", "My {a} is {b}. What causes this?"),
            (
                "How do I fix a {a} that keeps {b}?",
                "My {a} is {b}. How can I repair it?",
                "What can I do to stop my {a} from {b}?",
            ),
            (
                "Is it dangerous if my {a} is {b}?",
                "Is a {a} that keeps {b} a safety risk?",
                "Should I worry about my {a} {b}?",
            ),
        ),
    ),
    Domain(
        {"a": FOODS, "b": TOOLS},
        (
            (
                "How do I make {a} without {b}?",
                "Is there a way to prepare {a} if I cannot use {b}?",
                "How can I cook {a} when {b} is not at hand?",
            ),
            (
                "How do I make {a} with {b}?",
                "How can I prepare {a} using {b}?",
                "What is a good recipe for {a} that uses {b}?",
            ),
            ("How long does {a} take with {b}?", "How much time is needed to make {a} with {b}?"),
            (
                "Is {a} with {b} bad for you?",
                "Is it unhealthy to eat {a} made with {b}?",
                "Does {a} made with {b} harm your health?",
            ),
        ),
    ),
    Domain(
        {"a": JOBS, "b": COUNTRIES},
        (
            (
                "How do I become {a} in {b}{z}?",
                "What does it take to be {a} in {b}{z}?",
                "What are the steps to work as {a} in {b}{z}?",
            ),
            (
                "How much does {a} earn in {b}{z}?",
                "What is the salary of {a} in {b}{z}?",
                "How well paid is the job of {a} in {b}{z}?",
            ),
            ("Is it hard to work as {a} in {b}{z}?", "How tough is life as {a} in {b}{z}?"),
            ("What do you need to study to be {a} in {b}{z}?", "Which degree leads to a career as {a} in {b}{z}?"),
            ("Should I quit my job as {a} in {b}{z}?", "Is it time to stop working as {a} in {b}{z}?"),
        ),
        qualifiers=CAREER,
    ),
    Domain(
        {"a": PETS, "b": HABITS},
        (
            (
                "How do I stop my {a} from {b}?",
                "What can I do so that my {a} no longer insists on {b}?",
                "How can I keep a {a} from {b}?",
            ),
            ("Why is my {a} {b}?", "What makes a {a} start {b}?", "What is the reason for a {a} {b}?"),
            (
                "Is it normal that my {a} is {b}?",
                "Should I be concerned about a {a} {b}?",
                "Is a healthy {a} supposed to be {b}?",
            ),
            ("At what age does a {a} start {b}?", "How old is a {a} when it begins {b}?"),
            ("At what age does a {a} stop {b}?", "How old is a {a} when it gives up {b}?"),
        ),
    ),
    Domain(
        {"a": FORMATS, "b": FORMATS},
        (
            (
                "How do I convert {a} into {b}{z}?",
                "What is the easiest way to turn {a} into {b}{z}?",
                "How can I get {b} out of {a}{z}?",
                "How do I create {b} from {a}{z}?",
            ),
            (
                "Which program converts {a} to {b}{z}?",
                "What software makes {b} from {a}{z}?",
                "Is there an app to turn {a} into {b}{z}?",
            ),
            (
                "Why is quality lost when {a} becomes {b}?",
                "Why does {b} made from {a} look worse?",
                "What makes the quality drop when I turn {a} into {b}?",
            ),
            ("How do I embed {a} in {b}{z}?", "What is the way to put {a} inside {b}{z}?", "Can {b} contain {a}{z}?"),
        ),
        "ab",
        ONLINE,
    ),
    *(comparison for things in COMPARED for comparison in _comparisons(*things)),
    Domain(
        {"a": KILOS, "b": WEEKS},
        (
            (
                "How can I lose {a} kilos in {b} weeks{z}?",
                "What is the best diet to drop {a} kilos within {b} weeks{z}?",
                "I want to weigh {a} kilos less in {b} weeks. What should I do{z}?",
            ),
            (
                "How can I gain {a} kilos in {b} weeks{z}?",
                "What should I eat to put on {a} kilos within {b} weeks{z}?",
                "I want to weigh {a} kilos more in {b} weeks. What should I do{z}?",
            ),
            ("Is it healthy to lose {a} kilos in {b} weeks{z}?", "Is dropping {a} kilos within {b} weeks safe{z}?"),
            ("Is it healthy to gain {a} kilos in {b} weeks{z}?", "Is putting on {a} kilos within {b} weeks safe{z}?"),
        ),
        "ab",
        BODY,
    ),
    Domain(
        {"a": AMOUNTS, "b": COUNTRIES},
        (
            (
                "How should I invest {a} dollars in {b}{z}?",
                "What is the best way to invest {a} dollars in {b}{z}?",
                "Where in {b} should I put {a} dollars to make a profit{z}?",
            ),
            (
                "How can I borrow {a} dollars in {b}{z}?",
                "Who lends {a} dollars in {b}{z}?",
                "Where can I get a loan of {a} dollars in {b}{z}?",
            ),
            ("Can I live on {a} dollars a year in {b}{z}?", "Are {a} dollars a year enough to live in {b}{z}?"),
            ("Can I earn {a} dollars a year in {b}{z}?", "Is it possible to make {a} dollars a year in {b}{z}?"),
        ),
        qualifiers=MONEY,
    ),
    Domain(
        {"a": PEOPLE, "b": PEOPLE},
        (
            (
                "What did {a} think of {b}?",
                "What was the opinion of {a} about {b}?",
                "How did {a} see {b}?",
                "How was {b} seen by {a}?",
            ),
            ("Did {a} influence {b}?", "Was {b} influenced by {a}?", "How much does {b} owe to {a}?"),
            (
                "Was {a} smarter than {b}?",
                "Was {b} less intelligent than {a}?",
                "Did {a} have a sharper mind than {b}?",
            ),
            ("Why did {a} dislike {b}?", "Why was {b} disliked by {a}?", "What did {a} have against {b}?"),
        ),
        "ab",
    ),
    Domain(
        {"a": GENRES, "b": WORKS, "c": YEARS},
        (
            (
                "What are the best {a} {b} of {c}?",
                "Which {a} {b} from {c} are the best?",
                "What are some {a} {b} from {c} that I must not miss?",
            ),
            (
                "What are the worst {a} {b} of {c}?",
                "Which {a} {b} from {c} should I avoid?",
                "Which {a} {b} of {c} were the biggest letdown?",
            ),
            ("Which {a} {b} made after {c} are good?", "What are good {a} {b} that came out later than {c}?"),
            ("Which {a} {b} made before {c} are good?", "What are good {a} {b} that came out earlier than {c}?"),
        ),
    ),
    Domain(
        {"a": SUBSTANCES, "b": SURFACES},
        (
            (
                "How do I get {a} out of {b}?",
                "What removes {a} from {b}?",
                "What is the best way to clean {b} that has {a} on it?",
            ),
            ("How do I protect {b} from {a}?", "What keeps {a} off {b}?", "How can I prevent {a} from getting on {b}?"),
            (
                "Does {a} ruin {b} for good?",
                "Is the damage that {a} does to {b} permanent?",
                "Will {b} with {a} on it ever be clean again?",
            ),
        ),
    ),
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
    if draw.chance(37):
        same = draw.chance(15)
        again = _rephrase(draw, domain.intents[intent], template, same)
        return _ask_both(draw, domain.qualifiers, (template, slots, ""), (again, slots, "")), 1
    kind = draw.weighted([(_other_slot, 34), (_swapped, 22), (_other_intent, 26), (_qualified, 12), (_unrelated, 6)])
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
    narrow = "{z}" in first[0] and "{z}" in second[0] and not first[2] and not second[2] and draw.chance(20)
    shared = " " + draw.pick(qualifiers) if narrow else ""
    return _ask(draw, first, shared), _ask(draw, second, shared)


def _ask(draw: Draw, question: Question, shared: str) -> str:
    template, slots, qualifier = question
    words = {letter: draw.pick(forms) for letter, forms in slots.items()}
    text = template.format(z=qualifier or shared, **words)
    lower = text if text.startswith(("I ", "I'")) else text[0].lower() + text[1:]
    return draw.pick(FILLERS).format(q=text, l=lower)
