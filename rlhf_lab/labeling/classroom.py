"""A class of six simulated people for lessons: what their labels show is known, but not to whoever reads the labels.

people = small_class()
simulated_people(store, "compare", people, temperature=1.0)
"""

from dataclasses import replace

from rlhf_lab.feedback import Labeler, Population, population

_SHARED = {"ana": 6, "ben": 9, "cleo": 11, "dev": 12}
"""Four of the general population's, by their places in it: their tastes are alike, their use of a scale is not."""


def small_class() -> Population:
    """Four people who share values, one with another taste (short texts), and one who clicks without reading.

    Example:
        >>> [labeler.id for labeler in small_class().labelers]
        ['ana', 'ben', 'cleo', 'dev', 'eva', 'finn']
    """
    general = population("general").labelers
    brief = Labeler(
        id="eva", axes={"overall": 0.5, "accuracy": 0.4, "coherence": 0.3}, tastes={"words": -0.3}, noise=0.4
    )
    clicker = replace(general[0], id="finn", noise=100.0)
    return Population((*(replace(general[place], id=name) for name, place in _SHARED.items()), brief, clicker))
