"""What the pictures are called: categories, colours, and which names may stand beside each other.

The picture names come from emojibase (MIT). Everything here decides which of them are clear
enough for a fair question: a name that is not a fair answer ("package", "pager") is left out,
and two names that a person could not tell apart ("rooster", "hen") never meet as options.
"""
import re

LANGUAGES = ("ko", "en")

CATEGORIES = {  # English -> Korean
    "animal": "동물", "plant": "식물", "fruit": "과일", "vegetable": "채소", "food": "음식", "drink": "음료",
    "vehicle": "탈것", "building": "건물", "clothing": "옷이나 장신구", "musical instrument": "악기",
    "sport": "스포츠", "tool": "도구", "object": "물건", "place": "장소", "face": "얼굴", "flag": "국기",
    "sign": "기호", "sky": "하늘", "hand": "손",
}

COLORS = {  # English -> Korean
    "red": "빨간색", "orange": "주황색", "yellow": "노란색", "green": "초록색", "blue": "파란색", "purple": "보라색",
    "pink": "분홍색", "brown": "갈색", "black": "검은색", "white": "흰색", "gray": "회색",
}

CORNERS = (  # reading order
    {"en": "top left", "ko": "왼쪽 위"},
    {"en": "top right", "ko": "오른쪽 위"},
    {"en": "bottom left", "ko": "왼쪽 아래"},
    {"en": "bottom right", "ko": "오른쪽 아래"},
)

# emojibase subgroups whose pictures show one nameable thing ("core" concepts, used in the tables) ...
_CORE_GROUPS = {
    "animal": "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug",
    "plant": "plant-flower plant-other",
    "fruit": "food-fruit",
    "vegetable": "food-vegetable",
    "food": "food-prepared food-asian food-sweet",
    "drink": "drink",
    "building": "place-building place-religious",
    "place": "place-geographic place-other",
    "vehicle": "transport-ground transport-water transport-air",
    "sport": "sport",
    "musical instrument": "musical-instrument",
    "clothing": "clothing",
    "tool": "tool",
    "object": "game event award-medal arts-crafts phone computer light-video science medical household "
              "writing office lock dishware hotel music",
}
# ... and further ones that only pretraining sees.
_EXTRA_GROUPS = {
    "face": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell "
            "face-hat face-glasses face-concerned face-negative face-costume cat-face monkey-face",
    "sky": "sky-weather",
    "object": "book-paper money mail other-object sound body-parts time",
    "hand": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands",
    "sign": "heart transport-sign warning religion zodiac geometric",
    "place": "place-map",
    "flag": "flag country-flag",
}
CORE_GROUPS = {group: category for category, groups in _CORE_GROUPS.items() for group in groups.split()}
EXTRA_GROUPS = {group: category for category, groups in _EXTRA_GROUPS.items() for group in groups.split()}

# Names that no fair "what is this?" has as its answer.
UNCLEAR_NAME = re.compile("|".join(
    (
    "love hotel;wedding;wilted;oncoming;with arrow;tilted;sunrise;sunset;foggy;night;cityscape;"
    "first quarter;microbe;sparkles;suit$;locked;folder;card;chart;^link$;mate$;seat;front-facing;"
    "derelict;departure;arrival;building construction;landslide;national park;two-hump;spiral (note|cal);"
    "tear-off;dvd;notepad;incoming;rosette;tanabata;moon viewing;pine dec;woman’s|man’s;low battery;"
    "clinking;^ox$;^bug$;^pick$;trackball;joker;pager;spider web;spiral shell;paw prints;pig nose;"
    "^feather;^wing$;^coral;aerial tramway"
).split(";")))
# Categories that are too vague to ask for, names whose category is arguable, and pairs that overlap.
VAGUE_CATEGORIES = {"place", "object", "face", "flag", "sign", "sky", "hand"}
UNCLEAR_CATEGORY = re.compile("|".join(
    (
    "teapot;baby bottle;road;stop;rail.*track;oil;fuel;wheel;light;construction;anchor;buoy;seat;"
    "parachute;departure;arrival;satellite$;nest;brick;rock;wood;wedding;nose;paw;shell;web;feather;"
    "wing$;microbe;coral;salt;ice$;motorway;pouring;station;tunnel;mountain railway;bubble;link;chain;"
    "bomb;cane;hook;magnet;fan;pick$;purse;shopping;lipstick;gem;prayer;box;rice$;herb;cooking;pot of;"
    "Statue;Tokyo;tomato;avocado;olive;coconut;peanuts;chestnut;beans;dragon;unicorn;phoenix"
).split(";")))
OVERLAPPING_CATEGORIES = {frozenset(pair.split("/")) for pair in (
    "fruit/food;fruit/plant;fruit/vegetable;vegetable/food;vegetable/plant;food/drink;sport/tool;"
    "sport/clothing;tool/musical instrument"
).split(";")}
CLOSE_COLORS = {frozenset(pair.split("/")) for pair in (
    "red/orange orange/yellow red/pink orange/brown red/brown pink/purple blue/purple yellow/green "
    "black/brown black/purple"
).split(" ")}
# Things one cannot count as "three of them": plurals, pairs, bunches.
UNCOUNTABLE = re.compile(r"s$| and |ger root|^herb|^cook|dango|grape|bouquet|seedling")

# Words that say nothing about which thing it is, and families of things that look alike.
_FILLER = set((
    "face of and with the a an in s on for to pair piece big large small little old modern new happy 얼굴 "
    "있는 의 한 큰 조그만"
).split(" "))
_FAMILIES = [set(family.split()) for family in (
    "hen rooster chicken chick;sheep ram ewe lamb goat;cow bull ox bison buffalo;mouse rat hamster;"
    "deer doe caribou wapiti moose reindeer;rabbit bunny;camel dromedary;pigeon dove;"
    "duck drake goose gander;seal lion otter;sled sledge;hat fedora cap;"
    "automobile car sedan taxi beetle vehicle;boat ship ferry sailboat canoe speedboat tugboat;"
    "train locomotive carriage railway metro tram rail monorail trolleybus bus;truck lorry dumper;"
    "motorcycle scooter bike bicycle;mug cup coffee beverage;pant jean short;jacket coat shirt;"
    "shoe boot sandal;airplane plane;octopu squid;handbag purse bag backpack;mushroom;tree oak birch;"
    "flower blossom rose hibiscu tulip lotu bouquet;house building hut cottage;church cathedral;"
    "castle fort gate tower;bee honeybee fly;lettuce green salad;chili pepper;knife dagger sword;"
    "bird eagle parrot;alligator crocodile;pie cake shortcake cupcake;sweet yam potato;"
    "wine cocktail glass;tangerine orange;lime lemon;cable cableway;hot steaming;bowl pan pot;"
    "trouser pant;alembic test"
).split(";")]


def name_words(english: str, korean: str) -> tuple[set[str], set[str], str]:
    """The telling words of a name: English (without plural s), Korean, and Korean without spaces."""
    words = {word.rstrip("s") for word in re.findall("[a-z]+", english.lower())} - _FILLER
    return words, set(korean.split()) - _FILLER, korean.replace(" ", "")


def same_family(words: set[str], others: set[str]) -> bool:
    """Whether two sets of English words name look-alikes ("hen", "rooster")."""
    return any(family & words and family & others for family in _FAMILIES)
