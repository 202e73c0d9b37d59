"""Write the two tiny domains: videos with a bubble of cats, recipes with a bubble of tomatoes.

Items, public facts and people are invented from fixed lists and one seed.

Example:
    python -m tools.make_domains --output data/domains
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pkgllm.files import write_atomically
from pkgllm.randomness import stream

ANIMALS = {"cat": ("Kitten", "Tabby", "Tomcat"), "dog": ("Puppy", "Terrier", "Sheepdog")}
OTHERS = {"parrot": ("Parrot", "Cockatoo", "Macaw"), "otter": ("Otter", "Otter Pup", "Old Otter")}
SCENES = {
    "slapstick": ("Falls off the Shelf", "Meets a Mirror", "Steals a Sock"),
    "music": ("Plays the Piano", "Sings Along", "Drums on Pots"),
    "how-to": ("Learns a Trick", "Takes a Bath", "Gets a New Home"),
}
CHANNELS = ("Window Sill", "Backyard Daily", "Small Wonders")

DISHES = {
    "tomato": (
        "Tomato Soup",
        "Gazpacho",
        "Shakshuka",
        "Bruschetta",
        "Red Risotto",
        "Passata Pasta",
    ),
    "pumpkin": ("Pumpkin Soup", "Pumpkin Curry", "Pumpkin Pie", "Roast Pumpkin"),
    "lentil": ("Lentil Dal", "Lentil Salad", "Lentil Burger", "Red Lentil Soup"),
    "mushroom": ("Mushroom Risotto", "Mushroom Pie", "Mushroom Toast", "Mushroom Stew"),
    "potato": ("Potato Gratin", "Potato Salad", "Potato Curry", "Leek and Potato Soup"),
    "spinach": ("Spinach Quiche", "Spinach Dal", "Spinach Pasta", "Creamed Spinach"),
}
CUISINES = ("Italian", "Indian", "French")
COURSES = ("starter", "main", "side")


def cat_videos() -> dict[str, Any]:
    """Return the domain of videos."""
    items: list[dict[str, Any]] = []
    for animal, names in {**ANIMALS, **OTHERS}.items():
        for theme, scenes in SCENES.items():
            for name, scene in zip(names, scenes, strict=True):
                number = len(items)
                facts = {
                    "animal": [animal],
                    "theme": [theme],
                    "channel": [CHANNELS[number % len(CHANNELS)]],
                    "length": ["short" if number % 2 else "long"],
                }
                items.append({"id": f"v{number:02}", "name": f"{name} {scene}", "facts": facts})
    return {
        "name": "cat videos",
        "request": "Recommend videos to me.",
        "constraint": {"scope": "length", "value": "short"},
        "avoid": "cats",
        "alike": "animal",
        "item_class": "VideoObject",
        "items": items,
        "people": _people(items, "animal", "cat", "theme"),
    }


def tomato_recipes() -> dict[str, Any]:
    """Return the domain of recipes."""
    items: list[dict[str, Any]] = []
    for ingredient, dishes in DISHES.items():
        for dish in dishes:
            number = len(items)
            facts = {
                "ingredient": [ingredient, *(["tomato"] if dish == "Lentil Burger" else [])],
                "cuisine": [CUISINES[number % len(CUISINES)]],
                "course": [COURSES[number // 2 % len(COURSES)]],
            }
            items.append({"id": f"r{number:02}", "name": dish, "facts": facts})
    return {
        "name": "tomato recipes",
        "request": "Recommend recipes to me.",
        "constraint": {"scope": "cuisine", "value": "Italian"},
        "avoid": "tomatoes",
        "alike": "ingredient",
        "item_class": "Recipe",
        "items": items,
        "people": _people(items, "ingredient", "tomato", "cuisine"),
    }


def _people(
    items: list[dict[str, Any]], scope: str, bubble: str, taste: str
) -> list[dict[str, Any]]:
    """Invent people who like the bubble, know some other items, and later like more of those.

    A person's likes outside of the bubble share one value of ``taste``.
    """
    inside = [item["id"] for item in items if bubble in item["facts"][scope]]
    outside = [item for item in items if bubble not in item["facts"][scope]]
    tastes = sorted({item["facts"][taste][0] for item in outside})
    people = []
    for number in range(8):
        generator = stream(0, "domains", scope, str(number))
        favourite = tastes[number % len(tastes)]
        fitting = [item["id"] for item in outside if item["facts"][taste][0] == favourite]
        others = [item["id"] for item in outside if item["facts"][taste][0] != favourite]
        own = generator.permutation(fitting).tolist()
        facts = [["liked", item] for item in generator.permutation(inside)[:5].tolist()]
        facts += [["seen", item] for item in own[:2]] + [["liked", own[2]]]
        facts += [["disliked", item] for item in generator.permutation(others)[:1].tolist()]
        people.append({"id": f"p{number}", "facts": facts, "held_out": own[3:6]})
    return people


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, domain in (("cat_videos", cat_videos()), ("tomato_recipes", tomato_recipes())):
        write_atomically(folder / f"{name}.json", json.dumps(domain, indent=1) + "\n")


if __name__ == "__main__":
    main()
