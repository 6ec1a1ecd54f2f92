"""microtune: compile a small trained model to C that goes on learning on the device."""

from microtune.compiler.inference import compile_inference
from microtune.compiler.package import build
from microtune.compiler.planned import Memory, Plan
from microtune.compress.joining import features, join
from microtune.compress.quantization import quantize
from microtune.compress.quantization_report import quantization_report
from microtune.compress.replacing import replace_head
from microtune.device import Device
from microtune.errors import (
    BudgetError,
    BuildError,
    DeviceError,
    EmulationError,
    MicrotuneError,
    ModelError,
    PlanError,
    ToolchainError,
    TrainingError,
)
from microtune.export import export
from microtune.frontends.identity import identity
from microtune.frontends.load import load
from microtune.interface import Metrics, Prediction, Status, Update
from microtune.network import Network
from microtune.package import Package, open_package
from microtune.saving import save
from microtune.search import Frontier, search
from microtune.search.auto import Auto, plan
from microtune.training.bridge import to_torch
from microtune.training.distillation import distill
from microtune.training.pruning import prune
from microtune.training.quantization_aware import quantize_aware
from microtune.training.recipe import shrink
from microtune.tuning.bayes import Bayes
from microtune.tuning.budget import Budget
from microtune.tuning.heads import MAP, RLS, SLDA, Leaves, Logistic, Mahalanobis
from microtune.tuning.learner import Context, Input, Learner
from microtune.tuning.losses import Huber
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Adapter, Bias, Full, Head, LoRA, NormAffine, Outputs, Sparse
from microtune.tuning.sensors import Sensors
from microtune.version import VERSION as __version__

__all__ = [
    "MAP",
    "RLS",
    "SGD",
    "SLDA",
    "Adam",
    "Adapter",
    "Auto",
    "Bayes",
    "Bias",
    "Budget",
    "BudgetError",
    "BuildError",
    "Context",
    "Device",
    "DeviceError",
    "EmulationError",
    "Frontier",
    "Full",
    "Head",
    "Huber",
    "Input",
    "Learner",
    "Leaves",
    "LoRA",
    "Logistic",
    "Mahalanobis",
    "Memory",
    "Metrics",
    "MicrotuneError",
    "ModelError",
    "Network",
    "NormAffine",
    "Outputs",
    "Package",
    "Plan",
    "PlanError",
    "Prediction",
    "RMSProp",
    "Sensors",
    "Sparse",
    "Status",
    "ToolchainError",
    "TrainingError",
    "Update",
    "__version__",
    "build",
    "compile_inference",
    "distill",
    "export",
    "features",
    "identity",
    "join",
    "load",
    "open_package",
    "plan",
    "prune",
    "quantization_report",
    "quantize",
    "quantize_aware",
    "replace_head",
    "save",
    "search",
    "shrink",
    "to_torch",
]
