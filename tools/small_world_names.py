"""Words from which the titles, people and plots of the small world are composed.

All are common words and invented surnames. Any likeness to a real film or person is chance.
"""

from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_WORDS: tuple[str, ...] = _words(
    """Amber Brass Cobalt Crooked Distant Dusty Eleven Falling Feathered Fourteen Frozen Gentle
    Hollow Indigo Iron Ivory Jagged Lesser Linen Lonely Marble Midday Mossy Narrow Nimble Northern
    Olive Painted Patient Pewter Plaid Quartz Rusted Saffron Salted Second Seven Shallow Sleepy
    Slender Smoky Speckled Spiral Striped Sunken Tangled Tepid Thirsty Thorny Twelve Umber Unpaid
    Upper Wandering Waxen Weary Whistling Woven Yonder Zinc"""
)

SECOND_WORDS: tuple[str, ...] = _words(
    """Abacus Acorn Almanac Anvil Aqueduct Archway Balcony Barley Basin Bellows Biscuit Cabinet
    Canal Causeway Chimney Cistern Clover Compass Corridor Cutlery Dormouse Estuary Ferry Flagpole
    Furrow Gable Gazette Girder Granary Harness Hatbox Heron Inkwell Isthmus Juniper Kettle
    Ladder Lagoon Ledger Lichen Lodger Mallet Meridian Milestone Monsoon Nettle Oboe Orchard Oven
    Paddock Parsnip Pendulum Quarry Rafter Rowboat Satchel Shuttle Sundial Tollgate Weathervane"""
)

GIVEN_NAMES: tuple[str, ...] = _words(
    """Adela Anton Berit Bruno Celia Corin Dagny Dario Edda Emeric Fenna Gustav Halla Henrik Ines
    Ivo Jolanda Jonas Katrin Lazlo Leona Marek Mira Nadir Odile Oskar Petra Quentin Rosa Ruben
    Sanna Silas Tamsin Tobias Una Valter Wanda Xenia Yorick Zelda"""
)

FAMILY_NAMES: tuple[str, ...] = _words(
    """Abrell Bastwick Corvane Dunmarsh Elvestad Fennimar Gorrick Hallowin Istrane Jessemar
    Korvath Lindquay Marrowby Nethersol Ollenby Pasquenne Quillmore Rostevan Sarnwick Tavenhall
    Ulvander Vantroy Wexholt Yarrowin Zellwood"""
)

GENRES: tuple[str, ...] = (
    "action",
    "comedy",
    "crime",
    "fantasy",
    "horror",
    "mystery",
    "romance",
    "sci-fi",
    "war",
    "western",
)

HEROES: Mapping[str, tuple[str, ...]] = {
    "action": ("a retired stunt driver", "a stubborn bodyguard"),
    "comedy": ("a clumsy wedding planner", "two rival bakers"),
    "crime": ("a tired safe-cracker", "a forger with a debt"),
    "fantasy": ("an apprentice wizard", "a dragon who reads"),
    "horror": ("a night nurse", "the last guest of an inn"),
    "mystery": ("a village inspector", "a blind archivist"),
    "romance": ("a shy violin teacher", "two letter writers"),
    "sci-fi": ("a cargo pilot", "a robot gardener"),
    "war": ("a field cook", "a young signal corporal"),
    "western": ("a one-eyed rancher", "a travelling judge"),
}

QUESTS: Mapping[str, tuple[str, ...]] = {
    "action": ("must cross the city before the bridges blow", "outruns a private army"),
    "comedy": ("mixes up every invitation", "fakes a royal visit"),
    "crime": ("plans one last robbery", "hides the loot of a gang"),
    "fantasy": ("seeks a crown under the lake", "bargains with a sleeping giant"),
    "horror": ("hears breathing behind the wall", "finds a door that opens at night"),
    "mystery": ("finds a body and no weapon", "reads a will that names a stranger"),
    "romance": ("falls in love by mistake", "waits for an answer all summer"),
    "sci-fi": ("picks up a signal from a dead moon", "wakes a century too late"),
    "war": ("walks home behind the lines", "guards a hill nobody wants"),
    "western": ("rides into a town without law", "defends a well from cattle barons"),
}

PLACES: tuple[str, ...] = _words(
    "Aldermoor Brackenfield Castelrun Dovermere Eastlough Fallowmarch Grimsand Hexhaven"
)
