"""What the paper prints, to stand beside what we measure."""

from typing import NamedTuple


class Printed(NamedTuple):
    """A row of Table 1: overall, sentiment and paraphrase accuracy, STS correlation."""

    overall: float
    sst: float
    quora: float
    sts: float


# Table 1: title, our run, the split it is measured on, the printed row.
TABLE_1 = (
    ("Baseline", "baseline", "dev", Printed(0.494, 0.471, 0.390, 0.271)),
    ("Key Update 1", "key_update_1", "dev", Printed(0.670, 0.457, 0.778, 0.550)),
    ("Key Update 2", "key_update_2", "dev", Printed(0.681, 0.509, 0.784, 0.519)),
    ("Key Update 3", "key_update_3", "dev", Printed(0.717, 0.500, 0.872, 0.559)),
    ("Best Performance", "best_performance", "dev", Printed(0.779, 0.524, 0.874, 0.877)),
    ("Most Efficient", "dora_r16", "dev", Printed(0.757, 0.501, 0.846, 0.850)),
    ("Test Leaderboard", "best_performance", "test", Printed(0.778, 0.524, 0.875, 0.871)),
)

# Table 2: concatenation, our run, STS correlation.
TABLE_2 = (
    ("(u, v)", "concat_u_v", 0.530),
    ("(u, v, |u−v|)", "key_update_3", 0.559),
    ("(|u+v|, |u−v|)", "concat_sum_diff", 0.553),
    ("(u, v, c)", "best_performance", 0.877),
)

# Table 3: method, our run, the printed probabilities and overall score; round robin is described in 4.3, but not in the table.
TABLE_3 = (
    ("Sequential", "sampler_sequential", None, 0.767),
    ("Round Robin", "sampler_round_robin", None, None),
    ("Proportional", "sampler_proportional", (0.03, 0.95, 0.02), 0.773),
    ("Square Root", "best_performance", (0.13, 0.76, 0.11), 0.779),
    ("Balanced", "sampler_balanced", (0.33, 0.33, 0.33), 0.748),
)

# Table 4: kind of mistake and the two questions.
TABLE_4 = (
    ("FP", "Why computer vision is hard?", "Why computer vision is computationally hard?"),
    ("FN", "How is Donald Trump in person?", "What is Donald Trump like in person, away from the press/media?"),
    ("FP", "How do I fix a laptop that won't turn on?", "How do you fix an HP laptop that won't turn on?"),
)

# Figure 3: our runs by rank; the last is the full model.
FIGURE_3 = (
    ("r = 4", "dora_r4"),
    ("r = 8", "dora_r8"),
    ("r = 16", "dora_r16"),
    ("r = 32", "dora_r32"),
    ("full", "best_performance"),
)

SENTIMENTS = ("Negative", "Somewhat negative", "Neutral", "Somewhat positive", "Positive")
