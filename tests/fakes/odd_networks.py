"""Networks as users write them, each with something that is wrong for a run or looks so."""

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

class Base(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, classes)

    def features(self, x):
        return F.relu(self.conv(x)).mean((2, 3))

    def forward(self, x):
        return self.linear(self.features(x))
"""

LENET = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.linear = nn.Linear(4 * 8 * 8, classes)

    def forward(self, x):
        return self.linear(F.relu(self.conv(x)).view(len(x), -1))
"""

DROPOUT = """
class Net(Base):
    def forward(self, x):
        return self.linear(F.dropout(self.features(x), 0.5))
"""

HIDDEN_BUFFER = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("mask", torch.rand(4), persistent=False)

    def forward(self, x):
        return self.linear(self.features(x) * self.mask)
"""

FIXED_BUFFER = HIDDEN_BUFFER.replace("torch.rand(4)", "torch.arange(4) / 4")

ATTRIBUTE = HIDDEN_BUFFER.replace(
    'self.register_buffer("mask", torch.rand(4), persistent=False)', "self.mask = torch.rand(4)"
)

OTHER_SHAPES = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        wide = int(torch.randint(5, 5000, ()))
        self.more, self.linear = nn.Linear(4, wide), nn.Linear(wide, classes)

    def features(self, x):
        return self.more(super().features(x))
"""

FROZEN = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.requires_grad_(False)
"""

UNUSED = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.extra = nn.Linear(4, 4)
"""

NORM_IN_HEAD = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.norm = nn.BatchNorm1d(4)

    def features(self, x):
        return self.norm(super().features(x))
"""

RECURRENT = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def features(self, x):
        x = F.relu(self.conv(x)).flatten(2).transpose(1, 2)
        out, _ = self.lstm(x)
        return out[:, -1]
"""

U_NET = """
class Net(Base):
    def __init__(self, classes):
        super().__init__(classes)
        self.down, self.up = nn.Conv2d(4, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)

    def features(self, x):
        x = F.relu(self.conv(x))
        return (x + self.up(self.down(x))).mean((2, 3))
"""

SOFTMAX = """
class Net(Base):
    def forward(self, x):
        return super().forward(x).softmax(1)
"""

WRAPPED = """
class Compiled(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self._orig_mod = inside

"""
