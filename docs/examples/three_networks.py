"""Three networks on two data sets by three methods, of which a network, a data set and a method are the user's own."""

from clipped import Clipped

from suite.methods.amax import Amax
from suite.methods.mse import Mse
from suite.recipe import Calibration, Dataset, Network, Precision, Recipe, Sgd, Training

NETWORKS = ("torchvision/mobilenet_v2", "torchvision/resnet18", "vgg.py:Vgg")
DATASETS = {"digits": Dataset("digits", size=16), "cifar10": Dataset("part.py:cifar10")}


def trainings(
    networks: tuple[str, ...] = NETWORKS,
    datasets: tuple[str, ...] = tuple(DATASETS),
    seeds: int = 1,
    epochs: int = 6,
) -> list[Training]:
    """Brief ones: the networks learn something, not all that they can."""
    sgd = Sgd(epochs, batch=32, lr=0.02, schedule="cosine", pad=2, flip=False, precision=Precision("O0"))
    return [
        Training(Network(network), DATASETS[name], sgd, seed)
        for name in datasets
        for network in networks
        for seed in range(seeds)
    ]


def sweep(
    networks: tuple[str, ...] = NETWORKS,
    datasets: tuple[str, ...] = tuple(DATASETS),
    seeds: int = 1,
    epochs: int = 6,
) -> list[Recipe]:
    images = Calibration(256)
    return [
        Recipe(training, method)
        for training in trainings(networks, datasets, seeds, epochs)
        for bits in (8, 4)
        for method in (
            Amax(bits, bits, feed=images),
            Mse(bits, bits, feed=images),
            Clipped(bits, bits, calibration=images),
        )
    ]
