"""Every method of the suite, with little computing, on your networks: which ones apply, and that they run."""

from dataclasses import fields, replace

from three_networks import NETWORKS, trainings

from suite import methods
from suite.recipe import Calibration, Method, Precision, Recipe, Sgd

SMALL = {"iterations": 20, "score_images": 64, "probes": 1}
"""Of the methods that learn or measure; good accuracy takes more."""


def brief(method: Method) -> Method:
    """The method on 256 images, or trained on for an epoch."""
    changes = {}
    for item in fields(method):
        value = getattr(method, item.name)
        if isinstance(value, Calibration):
            changes[item.name] = Calibration(256, 64)
        elif isinstance(value, Sgd):
            changes[item.name] = Sgd(1, batch=64, lr=0.002, pad=2, flip=False, precision=Precision("O0"))
        elif item.name in SMALL:
            changes[item.name] = SMALL[item.name]
    return replace(method, **changes)


def sweep(networks: tuple[str, ...] = NETWORKS, epochs: int = 6) -> list[Recipe]:
    kinds = methods.find().values()
    return [
        Recipe(training, brief(kind()))
        for training in trainings(networks, ("digits",), epochs=epochs)
        for kind in kinds
    ]
