"""Reinforcement learning from human feedback, from raw text to a policy that people prefer.

The names below are loaded when they are first used, so that `import rlhf_lab` costs nothing.
"""

import importlib
import logging
from importlib.metadata import version

_HOMES = {
    "rlhf_lab.adapters": ("LoRAConfig",),
    "rlhf_lab.aggregation": (
        "aggregate",
        "by_values",
        "equal_weights",
        "jury",
        "majority_vote",
        "standardized",
        "worst",
    ),
    "rlhf_lab.control.actor_critic": ("ControlConfig", "Learner"),
    "rlhf_lab.control.ensemble": ("EnsembleConfig", "RewardEnsemble", "Segment"),
    "rlhf_lab.control.preferences": ("PreferenceConfig", "PreferenceLearner", "by_true_return"),
    "rlhf_lab.control.simulation": ("Simulation", "pictures"),
    "rlhf_lab.control.tamer": ("SimulatedTrainer", "TAMERAgent", "TAMERConfig", "tamer"),
    "rlhf_lab.control.tasks": ("judge_mountain_car", "make_task", "radial_features"),
    "rlhf_lab.control.tetris": ("Tetris", "judge_tetris", "teach_tetris", "tetris_config", "tetris_features"),
    "rlhf_lab.data.authored": ("authored_pairs", "load_authored"),
    "rlhf_lab.data.datasets": ("TLDR", "load_comparisons", "load_tldr"),
    "rlhf_lab.data.judge": ("Judge", "Judgement"),
    "rlhf_lab.data.rules": ("Rule", "load_rules"),
    "rlhf_lab.data.revising": ("refining_demonstrations", "refining_prompt", "require_feedback"),
    "rlhf_lab.data.quotes": ("judge_quote", "quoting_demonstrations", "split_quote", "with_quote"),
    "rlhf_lab.data.world": ("World",),
    "rlhf_lab.equations.selective": ("selective_rate",),
    "rlhf_lab.evaluation": (
        "best_of_n_rows",
        "compare_with_reference",
        "length_controlled",
        "preference_rate",
        "reward_model_report",
        "win_rate",
        "write_summaries",
    ),
    "rlhf_lab.experiments.course_models": ("CourseModelsConfig", "make_course_models"),
    "rlhf_lab.experiments.opposite_tastes": ("TastesConfig", "opposite_tastes"),
    "rlhf_lab.experiments.pretraining": ("pretrain_base", "train_tokenizer"),
    "rlhf_lab.experiments.results": ("ResultsConfig", "run_results"),
    "rlhf_lab.experiments.results_page": ("load_results",),
    "rlhf_lab.experiments.sweep": ("SweepConfig", "run_sweep"),
    "rlhf_lab.experiments.systems.command": ("SystemsConfig", "run_systems"),
    "rlhf_lab.experiments.sizing": ("memory_of_job",),
    "rlhf_lab.experiments.tldr": ("TLDRConfig", "run_tldr"),
    "rlhf_lab.feedback": ("LearnedReward", "Reward", "gold_judge", "population", "simulated_labels"),
    "rlhf_lab.generation": ("SamplingConfig", "best_of_n", "generate"),
    "rlhf_lab.labeling.clips": ("clip_preferences",),
    "rlhf_lab.labeling.items": ("Item",),
    "rlhf_lab.labeling.learning": ("rule_rows",),
    "rlhf_lab.labeling.pad": ("replay_pad", "tamer_pad"),
    "rlhf_lab.labeling.probe": ("probe",),
    "rlhf_lab.labeling.report": ("agreement_report",),
    "rlhf_lab.labeling.policy_scores": ("policy_scores",),
    "rlhf_lab.labeling.people": ("simulated_people",),
    "rlhf_lab.labeling.classroom": ("small_class",),
    "rlhf_lab.labeling.asking": ("choose_next",),
    "rlhf_lab.labeling.exchange": ("export_labels", "import_labels"),
    "rlhf_lab.labeling.single": ("comment_rows", "edit_rows", "rating_rows", "thumb_rows"),
    "rlhf_lab.labeling.store": ("LabelStore",),
    "rlhf_lab.labeling.talking": ("reply_with",),
    "rlhf_lab.labeling.widget": ("chat", "compare", "compare_clips", "edit", "rank", "rate", "thumbs"),
    "rlhf_lab.lesson_plots": (
        "draw_best_of_n",
        "plot_axes_of",
        "plot_clips",
        "plot_extrapolation",
        "plot_frontiers",
        "plot_memory",
        "plot_narrowing",
        "plot_opinions",
        "plot_raw_and_controlled",
        "plot_rules",
        "plot_shares",
    ),
    "rlhf_lab.model_feedback": ("InformationReward", "model_labels"),
    "rlhf_lab.models": ("Policy", "RewardModel", "load_base", "load_tokenizer", "new_policy"),
    "rlhf_lab.plots": (
        "plot_calibration",
        "plot_overoptimization",
        "plot_reward_model_accuracy",
        "plot_training",
        "plot_win_rates",
        "plot_win_rates_by_size",
    ),
    "rlhf_lab.policy_plots": (
        "plot_changes",
        "plot_estimates",
        "plot_own_run",
        "plot_runs",
        "plot_surrogate",
        "plot_tokens",
    ),
    "rlhf_lab.preference_plots": (
        "draw_own_accuracy",
        "plot_crowds",
        "plot_on_the_way",
        "plot_rates",
        "plot_scales",
        "plot_tastes",
    ),
    "rlhf_lab.probing": ("RuleReward", "probes", "rule_labels"),
    "rlhf_lab.quoting": ("write_with_quotes",),
    "rlhf_lab.records": ("Comparison", "Demonstration", "Label", "Prompt"),
    "rlhf_lab.course.checking": ("check",),
    "rlhf_lab.course.marking": ("grade_written",),
    "rlhf_lab.runs": ("Run",),
    "rlhf_lab.shipped": ("load_shipped_comparisons", "load_trained"),
    "rlhf_lab.text_plots": (
        "plot_edits",
        "plot_equals",
        "plot_imitators",
        "plot_next_tokens",
        "plot_pulled",
        "plot_token_losses",
    ),
    "rlhf_lab.training.a2c": ("A2CConfig", "a2c", "a2c_config"),
    "rlhf_lab.training.distillation": ("DistillationConfig", "distill_context", "distillation_config"),
    "rlhf_lab.training.dpo": ("DPOConfig", "dpo", "dpo_config"),
    "rlhf_lab.training.fit": ("OptimizerConfig",),
    "rlhf_lab.training.grpo": ("GRPOConfig", "grpo", "grpo_config"),
    "rlhf_lab.training.ppo": ("PPOConfig", "ppo", "ppo_config"),
    "rlhf_lab.training.rankings": ("ranking_rows",),
    "rlhf_lab.training.ratings": ("RatingModelConfig", "centered", "rating_model_config", "train_rating_model"),
    "rlhf_lab.training.reward_model": ("RewardModelConfig", "reward_model_config", "train_reward_model"),
    "rlhf_lab.training.rloo": ("RLOOConfig", "rloo", "rloo_config"),
    "rlhf_lab.training.rule_model": ("RuleModelConfig", "rule_model_config", "train_rule_model"),
    "rlhf_lab.training.supervised": ("PretrainConfig", "SFTConfig", "pretrain", "sft", "sft_config"),
    "rlhf_lab.vllm_backend": ("VLLMBackend",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = version("rlhf-lab")


# On some CPUs bitsandbytes asks for a package that multiplies by weights of 4 bits, of which there are none here.
logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"rlhf_lab has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
