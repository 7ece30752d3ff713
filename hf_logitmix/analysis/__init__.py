"""What the figures of the papers show, as functions of arrays, and what keeps it while a model trains."""

from hf_logitmix.analysis.bottleneck import Bottleneck, with_bottleneck
from hf_logitmix.analysis.information import mutual_information
from hf_logitmix.analysis.snapshots import Snapshot, Snapshots, look_at, read_snapshots
from hf_logitmix.analysis.soft_targets import mixed_targets, targets_of, top_targets
from hf_logitmix.analysis.temperatures import over_temperatures
from hf_logitmix.analysis.templates import project_on_templates

__all__ = [
    "Bottleneck",
    "Snapshot",
    "Snapshots",
    "look_at",
    "mixed_targets",
    "mutual_information",
    "over_temperatures",
    "project_on_templates",
    "read_snapshots",
    "targets_of",
    "top_targets",
    "with_bottleneck",
]
