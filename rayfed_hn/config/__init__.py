"""Every knob, its default, unit and range; nothing else in the package holds a default.

A configuration is a tree of frozen dataclasses, made by ``rayfed_hn.loading.load``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rayfed_hn.config.audit import AuditConfig
from rayfed_hn.config.federation import (
    METHODS,
    RELEASE_NOTHING,
    EvaluationConfig,
    HypernetworkConfig,
    MethodConfig,
    ModelConfig,
    TrainingConfig,
)
from rayfed_hn.config.onboard import OnboardConfig
from rayfed_hn.config.privacy import FORMAL, PrivacyConfig
from rayfed_hn.config.rounds import FEWEST_VOTES, RoundsConfig, SimulationConfig
from rayfed_hn.config.runs import CompareConfig, DemoConfig, ResourcesConfig, RunConfig
from rayfed_hn.config.scale import ScaleConfig
from rayfed_hn.config.slides import (
    ArtefactsConfig,
    DataConfig,
    EmbedConfig,
    LimitsConfig,
    TissueConfig,
)
from rayfed_hn.config.task import TaskConfig
from rayfed_hn.config.tune import TuneConfig

__all__ = [
    "FEWEST_VOTES",
    "FORMAL",
    "METHODS",
    "RELEASE_NOTHING",
    "ArtefactsConfig",
    "AuditConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DemoConfig",
    "EmbedConfig",
    "EvaluationConfig",
    "HypernetworkConfig",
    "LimitsConfig",
    "MethodConfig",
    "ModelConfig",
    "OnboardConfig",
    "PrivacyConfig",
    "ResourcesConfig",
    "RoundsConfig",
    "RunConfig",
    "ScaleConfig",
    "SimulationConfig",
    "TaskConfig",
    "TissueConfig",
    "TrainingConfig",
    "TuneConfig",
]


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    run: RunConfig = field(default_factory=RunConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    hypernetwork: HypernetworkConfig = field(default_factory=HypernetworkConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    onboard: OnboardConfig = field(default_factory=OnboardConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)
