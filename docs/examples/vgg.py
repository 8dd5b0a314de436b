"""A small VGG (Simonyan and Zisserman 2014, arXiv 1409.1556) with BatchNorm, for images of 16x16 pixels or more."""

from torch import nn

WIDTHS = (16, 16, "pool", 32, 32, "pool", 64, 64)
"""The output channels of its 3x3 convolutions, and where the side is halved."""


class Vgg(nn.Module):
    """Input [n, 3, side, side], output [n, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            if isinstance(width, str):
                modules.append(nn.MaxPool2d(2))
                continue
            modules += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(*modules, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(4 * channels, 64), nn.ReLU(inplace=True), nn.Linear(64, classes)
        )

    def forward(self, x):
        return self.classifier(self.features(x))
