"""The words that `pocket` is trained with: other wordings of the data sets' class names, and which names mean the same thing.

A photo's annotation is one name per mask; people say it in many ways. `wordings` gives those ways for training; they are never used when
the model answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...data.vocabularies import templates

# name (as the data sets write it) -> other words for the same thing; raw names stay the most frequent wording
SYNONYMS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("airplane", "plane", "aircraft", "jet"),
    "airplane": ("aeroplane", "plane", "aircraft", "jet"),
    "apple": ("red apple", "green apple", "fruit"),
    "backpack": ("rucksack", "bag"),
    "bag": ("handbag", "purse", "shoulder bag"),
    "banana": ("bananas", "fruit"),
    "bear": ("brown bear", "polar bear", "grizzly", "animal"),
    "bed": ("mattress", "bedding"),
    "bench": ("park bench", "seat"),
    "bicycle": ("bike", "mountain bike", "cycle"),
    "bicyclist": ("cyclist", "person riding a bicycle", "person on a bike", "rider"),
    "bird": ("duck", "goose", "gull", "swan", "pigeon", "water bird", "animal"),
    "boat": ("ship", "sailing boat", "rowing boat", "fishing boat", "canoe"),
    "body": ("human body", "person's body", "clothes"),
    "book": ("books", "paperback", "bookshelf"),
    "bottle": ("glass bottle", "water bottle", "beer bottle"),
    "bowl": ("dish", "soup bowl"),
    "building": ("house", "buildings", "tower", "facade", "church", "castle", "city"),
    "bus": ("coach", "double decker bus", "vehicle"),
    "cake": ("birthday cake", "pie", "dessert"),
    "car": ("automobile", "cars", "race car", "sports car", "parked car", "vehicle"),
    "cat": ("kitten", "kitty", "tabby", "animal"),
    "cell phone": ("mobile phone", "phone", "smartphone"),
    "chair": ("bench", "armchair", "seat", "stool"),
    "clock": ("wall clock", "clock face"),
    "coat": ("jacket", "overcoat"),
    "couch": ("sofa", "settee"),
    "cow": ("cows", "cattle", "bull", "calf", "animal"),
    "cup": ("mug", "coffee cup", "glass"),
    "dining table": ("table", "desk"),
    "dog": ("puppy", "hound", "terrier", "retriever", "animal", "pet"),
    "donut": ("doughnut", "donuts"),
    "dress": ("gown", "skirt"),
    "elephant": ("elephants", "african elephant", "animal"),
    "face": ("human face", "head", "someone's face"),
    "fence": ("railing", "barrier"),
    "fire hydrant": ("hydrant",),
    "flower": ("flowers", "blossom", "rose", "bloom"),
    "frisbee": ("disc", "flying disc"),
    "giraffe": ("giraffes", "animal"),
    "grass": ("lawn", "meadow", "the ground", "field", "green grass", "pasture"),
    "hair": ("hairstyle", "long hair"),
    "handbag": ("purse", "bag"),
    "hat": ("cap",),
    "horse": ("pony", "horses", "animal"),
    "hot dog": ("sausage", "sandwich"),
    "jeans": ("denim trousers", "blue jeans"),
    "keyboard": ("computer keyboard",),
    "kite": ("flying kite", "paraglider", "parachute"),
    "laptop": ("notebook computer", "computer"),
    "motorcycle": ("motorbike", "moped", "scooter"),
    "mountain": ("hill", "mountains", "peak", "cliff"),
    "orange": ("oranges", "tangerine", "fruit"),
    "oven": ("stove", "cooker"),
    "pants": ("trousers",),
    "pavement": ("sidewalk", "footpath", "walkway"),
    "pedestrian": ("person walking", "people walking", "person"),
    "person": ("people", "man", "woman", "boy", "girl", "child", "human", "someone", "player", "pedestrian", "guy"),
    "person flying a kite": ("man with a kite", "kite surfer"),
    "person riding a bicycle": ("cyclist", "person on a bike", "man riding a bike", "woman on a bicycle", "bicyclist"),
    "person riding a horse": ("horse rider", "rider", "man on a horse", "person on horseback"),
    "person riding a motorcycle": ("motorcyclist", "biker", "man on a motorbike", "motorcycle rider"),
    "pizza": ("pizza slice", "food"),
    "pole": ("lamp post", "street lamp", "column"),
    "potted plant": ("plant", "houseplant", "flower pot"),
    "refrigerator": ("fridge",),
    "remote": ("remote control",),
    "road": ("street", "asphalt", "lane", "path"),
    "sandwich": ("burger", "toast", "food"),
    "scarf": ("shawl",),
    "sheep": ("lamb", "ram", "flock of sheep", "goat", "animal"),
    "shirt": ("blouse", "top", "t-shirt"),
    "shoes": ("shoe", "footwear"),
    "sign": ("road sign", "traffic sign", "signboard"),
    "sink": ("basin", "washbasin"),
    "skateboard": ("longboard",),
    "skateboarder": ("person on a skateboard", "boy skateboarding", "skater"),
    "skier": ("person skiing", "man on skis", "person on skis"),
    "skis": ("pair of skis", "ski"),
    "sky": ("clouds", "blue sky", "cloudy sky", "the heavens"),
    "snowboard": ("board",),
    "snowboarder": ("person on a snowboard", "man snowboarding"),
    "sports ball": ("ball", "football", "soccer ball", "tennis ball"),
    "stop sign": ("red sign", "traffic sign"),
    "suitcase": ("luggage", "suitcases", "bag"),
    "surfboard": ("board", "surf board"),
    "surfer": ("person surfing", "man on a surfboard", "person riding a wave"),
    "teddy bear": ("stuffed animal", "plush toy", "toy"),
    "tennis player": ("person playing tennis", "man with a racket"),
    "tennis racket": ("racket", "racquet"),
    "tie": ("necktie", "bow tie"),
    "toilet": ("lavatory", "toilet bowl"),
    "traffic light": ("stoplight", "traffic signal"),
    "train": ("locomotive", "railway carriage", "tram"),
    "tree": ("trees", "bush", "foliage", "forest", "plant"),
    "truck": ("lorry", "pickup", "vehicle"),
    "tv": ("television", "monitor", "screen"),
    "umbrella": ("parasol", "umbrellas"),
    "vase": ("flower vase", "jar"),
    "water": ("sea", "lake", "river", "ocean", "pond", "waves"),
    "wine glass": ("glass", "goblet"),
    "zebra": ("zebras", "animal"),
}

# ImageNet classes (0-based index ranges in the standard order) that are a kind of something said more plainly
PLAIN_NAMES: dict[str, tuple[tuple[int, int], ...]] = {
    "fish": ((0, 6), (389, 397)),
    "bird": ((7, 24), (80, 100), (127, 146)),
    "dog": ((151, 268),),
    "cat": ((281, 285),),
    "bear": ((294, 297),),
    "insect": ((300, 326),),
    "snake": ((52, 68),),
    "elephant": ((385, 386),),
    "monkey": ((369, 382),),
    "sheep": ((348, 350),),
    "horse": ((339, 339),),
    "zebra": ((340, 340),),
    "boat": ((472, 472), (484, 484), (554, 554), (576, 576), (625, 625), (724, 724), (814, 814), (871, 871), (914, 914)),
    "car": ((436, 436), (468, 468), (511, 511), (609, 609), (627, 627), (656, 656), (751, 751), (817, 817)),
    "bus": ((654, 654), (779, 779), (874, 874)),
    "truck": ((555, 555), (569, 569), (717, 717), (864, 864), (867, 867)),
    "train": ((466, 466), (547, 547), (820, 820)),
    "airplane": ((404, 404), (895, 895)),
    "bicycle": ((444, 444), (671, 671)),
    "motorcycle": ((665, 665), (670, 670)),
    "chair": ((423, 423), (559, 559), (765, 765), (857, 857)),
    "couch": ((831, 831),),
    "bottle": ((440, 440), (720, 720), (737, 737), (898, 898), (907, 907)),
    "cup": ((504, 504), (968, 968)),
    "clock": ((409, 409), (530, 530), (892, 892)),
    "keyboard": ((508, 508),),
    "laptop": ((620, 620), (681, 681)),
    "cell phone": ((487, 487),),
    "teddy bear": ((850, 850),),
    "toilet": ((861, 861),),
    "refrigerator": ((760, 760),),
    "sports ball": ((429, 430), (522, 522), (574, 574), (722, 722), (768, 768), (805, 805), (852, 852), (890, 890)),
    "potted plant": ((738, 738),),
    "building": ((497, 498), (663, 663), (668, 668), (698, 698), (832, 832)),
    "flower": ((985, 986),),
    "fruit": ((948, 957),),
}

# names whose absence is sure in the sets that do not annotate them (no farm animal or vehicle hides in a fashion photo)
ELSEWHERE: tuple[str, ...] = (
    "airplane", "banana", "bear", "bed", "broccoli", "bus", "cake", "donut", "elephant", "fire hydrant", "giraffe", "hot dog", "kite",
    "laptop", "microwave", "motorcycle", "oven", "parking meter", "pizza", "refrigerator", "sheep", "sink", "skis", "snowboard",
    "stop sign", "surfboard", "teddy bear", "tennis racket", "toaster", "toilet", "train", "wine glass", "zebra", "cow", "cat", "boat",
)  # fmt: skip

# of these hardly any is in a photo in which only the person was annotated
RARE_WITH_PEOPLE: tuple[str, ...] = (
    "airplane", "bear", "elephant", "fire hydrant", "giraffe", "parking meter", "sheep", "stop sign", "toaster", "toilet", "traffic light",
    "train", "zebra",
)  # fmt: skip

# phrases for a person together with the thing that they use: where both touch, their masks together are what the phrase means
COMPOSED: dict[str, tuple[str, str]] = {
    "person flying a kite": ("person", "kite"),
    "person riding a bicycle": ("person", "bicycle"),
    "person riding a horse": ("person", "horse"),
    "person riding a motorcycle": ("person", "motorcycle"),
    "skateboarder": ("person", "skateboard"),
    "skier": ("person", "skis"),
    "snowboarder": ("person", "snowboard"),
    "surfer": ("person", "surfboard"),
    "tennis player": ("person", "tennis racket"),
}

# annotated separately here and there, but one contains or repeats the other: never each other's negative
OVERLAPPING: tuple[frozenset[str], ...] = (
    frozenset({"person", "face", "body", "pedestrian", "bicyclist", "skin", "hair", *COMPOSED}),
    frozenset({"aeroplane", "airplane"}),
    frozenset({"chair", "bench", "couch"}),
    frozenset({"sign", "stop sign", "traffic light"}),
    frozenset({"tree", "potted plant", "flower", "grass", "vase"}),
    frozenset({"bicycle", "bicyclist", "motorcycle", "person riding a bicycle"}),
    frozenset({"road", "pavement"}),
    frozenset({"handbag", "bag", "purse", "backpack", "suitcase", "wallet"}),
    frozenset({"shoes", "boots", "pumps", "heels", "flats", "wedges", "sandals", "sneakers", "loafers", "clogs"}),
    frozenset({"shirt", "blouse", "top", "t-shirt", "sweater", "sweatshirt", "hoodie", "cardigan", "jumper", "bodysuit", "vest"}),
    frozenset({"coat", "jacket", "blazer", "cape"}),
    frozenset({"pants", "jeans", "leggings", "tights", "stockings", "panties"}),
    frozenset({"dress", "skirt", "romper", "suit", "gown"}),
    frozenset({"glasses", "sunglasses"}),
    frozenset({"socks", "stockings", "tights"}),
    frozenset({"bracelet", "watch", "necklace", "ring", "earrings", "accessories"}),
    frozenset({"cup", "wine glass", "bottle", "bowl", "vase"}),
    frozenset({"car", "truck", "bus"}),
    frozenset({"teddy bear", "bear"}),
    frozenset({"hot dog", "sandwich"}),
    frozenset({"tv", "laptop"}),
    frozenset({"cow", "sheep", "horse"}),
)


def overlapping(a: str, b: str, same_source: bool) -> bool:
    """Whether a mask of ``a`` may also be one of ``b``."""
    return a == b or (not same_source and any(a in group and b in group for group in OVERLAPPING))


# what the published weights were taught to know apart
KNOWN: tuple[str, ...] = tuple(sorted({*SYNONYMS, *ELSEWHERE}))


def wordings(name: str, *, synonyms: bool = True) -> tuple[str, ...]:
    """All ways to say a name in training; the raw name comes first. Without ``synonyms``: the name in sentences and plural only."""
    return _worded((name, *(SYNONYMS.get(name, ()) if synonyms else ())))


def own_wordings(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Those that say no other one of ``names`` or `KNOWN`: "animal" is neither dog nor cow, "skirt" no dress where both are names."""
    others = {*names, *KNOWN} - {name}
    taken = others.union(*(SYNONYMS.get(other, ()) for other in others))
    return _worded((name, *(word for word in SYNONYMS.get(name, ()) if word not in taken)))


def _worded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*words, *(template.format(word) for word in words for template in templates("pocket"))]))
